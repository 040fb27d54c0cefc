//! Finds the server, the credentials and the namespace: reads and merges kubeconfig files like kubectl, then applies
//! the flags. Does not talk to a server.

mod edit;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{Cluster, Context, KubeConfigOptions, Kubeconfig, NamedCluster, NamedContext};
use serde::Deserialize;

use crate::error::{CliError, Result};

pub use edit::{use_context, view};

/// Name of the cluster extension that lists further masters: `{"servers": ["https://…", …]}`. They are tried in order
/// if the cluster's `server` does not accept the connection.
pub const MASTERS_EXTENSION: &str = "quorate.io/masters";

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Connect timeout if there are other masters to fail over to.
const FAILOVER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The flags about the connection.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub server: Option<String>,
    pub token: Option<String>,
    pub insecure_skip_tls_verify: bool,
    pub certificate_authority: Option<String>,
    pub client_certificate: Option<String>,
    pub client_key: Option<String>,
}

/// The resolved configuration of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Client configurations of the masters, in the order in which they are tried.
    pub configs: Vec<kube::Config>,
    /// The context's namespace, or `default` if it has none.
    pub namespace: String,
}

/// The environment variables that are used here. They are passed in so that tests need not change the process's own.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub kubeconfig: Option<OsString>,
    pub home: Option<PathBuf>,
}

impl Environment {
    #[must_use]
    pub fn of_process() -> Self {
        Environment { kubeconfig: std::env::var_os("KUBECONFIG"), home: std::env::var_os("HOME").map(PathBuf::from) }
    }
}

/// Returns the kubeconfig files, in order of precedence.
#[must_use]
pub fn files(overrides: &Overrides, environment: &Environment) -> Vec<PathBuf> {
    if let Some(file) = &overrides.kubeconfig {
        return vec![file.clone()];
    }
    if let Some(list) = &environment.kubeconfig {
        let listed: Vec<PathBuf> = std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect();
        if !listed.is_empty() {
            return listed;
        }
    }
    environment.home.iter().map(|home| home.join(".kube").join("config")).collect()
}

/// Reads and merges the kubeconfig files. The first file that sets a value or an entry wins. Missing files of a list
/// are skipped.
///
/// # Errors
/// When a file named by `--kubeconfig` is missing, or any file cannot be read or parsed.
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Kubeconfig> {
    let explicit = overrides.kubeconfig.is_some();
    let mut merged = Kubeconfig::default();
    for file in files(overrides, environment) {
        if !explicit && !file.exists() {
            continue;
        }
        merged =
            merged.merge(read(&file)?).map_err(|error| CliError::usage(format!("error loading config: {error}")))?;
    }
    Ok(merged)
}

fn read(file: &Path) -> Result<Kubeconfig> {
    if !file.exists() {
        return Err(CliError::usage(format!("stat {}: no such file or directory", file.display())));
    }
    Kubeconfig::read_from(file)
        .map_err(|error| CliError::usage(format!("error loading config file \"{}\": {error}", file.display())))
}

/// Resolves context, cluster and user, applies the flags, and makes one client configuration for each master.
///
/// # Errors
/// When there is no kubeconfig, a name in it does not exist, or its certificates cannot be loaded.
pub async fn connect(mut kubeconfig: Kubeconfig, overrides: &Overrides) -> Result<Connection> {
    if kubeconfig.clusters.is_empty() && overrides.server.is_none() {
        return Err(CliError::usage(
            "no kubeconfig with a cluster was found (looked at --kubeconfig, $KUBECONFIG and ~/.kube/config); name one, such as the `kubeconfig` in the data directory of `quorate up`",
        ));
    }
    complete_for_flags(&mut kubeconfig, overrides);
    let context = selected_context(&kubeconfig, overrides)?;
    let options = KubeConfigOptions {
        context: Some(context.name.clone()),
        cluster: Some(overrides.cluster.clone().unwrap_or_else(|| context.cluster.clone())),
        user: overrides.user.clone().or_else(|| context.user.clone()),
    };
    let masters = masters(&kubeconfig, options.cluster.as_deref(), overrides)?;
    apply_flags(&mut kubeconfig, &options, overrides);
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| CliError::usage(format!("invalid kubeconfig: {error}")))?;
    let namespace = config.default_namespace.clone();
    let mut configs = Vec::new();
    for master in &masters {
        let mut one = config.clone();
        one.cluster_url =
            master.parse().map_err(|error| CliError::usage(format!("invalid server \"{master}\": {error}")))?;
        one.connect_timeout = Some(if masters.len() > 1 { FAILOVER_CONNECT_TIMEOUT } else { DEFAULT_CONNECT_TIMEOUT });
        one.read_timeout = None;
        one.default_retry = false;
        configs.push(one);
    }
    Ok(Connection { configs, namespace })
}

struct SelectedContext {
    name: String,
    cluster: String,
    user: Option<String>,
}

fn selected_context(kubeconfig: &Kubeconfig, overrides: &Overrides) -> Result<SelectedContext> {
    let name = overrides
        .context
        .as_ref()
        .or(kubeconfig.current_context.as_ref().filter(|name| !name.is_empty()))
        .cloned()
        .ok_or_else(|| CliError::usage("current-context is not set; choose one with `qctl config use-context NAME` (see `qctl config get-contexts`) or --context"))?;
    let context = kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == name)
        .and_then(|context| context.context.as_ref())
        .ok_or_else(|| CliError::usage(format!("context \"{name}\" does not exist")))?;
    let cluster = overrides.cluster.as_ref().unwrap_or(&context.cluster);
    if !kubeconfig.clusters.iter().any(|known| &known.name == cluster) {
        return Err(CliError::usage(format!("cluster \"{cluster}\" does not exist")));
    }
    Ok(SelectedContext { name, cluster: context.cluster.clone(), user: context.user.clone() })
}

/// Completes the kubeconfig so that `--server` without any file is enough for a connection.
fn complete_for_flags(kubeconfig: &mut Kubeconfig, overrides: &Overrides) {
    const FLAGS: &str = "command-line";
    if overrides.server.is_none() || kubeconfig.current_context.is_some() || overrides.context.is_some() {
        return;
    }
    kubeconfig.clusters.push(NamedCluster {
        name: FLAGS.into(),
        cluster: Some(Cluster { server: overrides.server.clone(), ..Cluster::default() }),
        ..NamedCluster::default()
    });
    kubeconfig.contexts.push(NamedContext {
        name: FLAGS.into(),
        context: Some(Context { cluster: FLAGS.into(), user: Some(FLAGS.into()), ..Context::default() }),
        ..NamedContext::default()
    });
    kubeconfig.auth_infos.push(kube::config::NamedAuthInfo {
        name: FLAGS.into(),
        auth_info: Some(kube::config::AuthInfo::default()),
        ..kube::config::NamedAuthInfo::default()
    });
    kubeconfig.current_context = Some(FLAGS.into());
}

fn apply_flags(kubeconfig: &mut Kubeconfig, options: &KubeConfigOptions, overrides: &Overrides) {
    for named in &mut kubeconfig.clusters {
        if Some(&named.name) != options.cluster.as_ref() {
            continue;
        }
        let cluster = named.cluster.get_or_insert_default();
        if let Some(server) = &overrides.server {
            cluster.server = Some(server.clone());
        }
        if overrides.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if let Some(file) = &overrides.certificate_authority {
            cluster.certificate_authority = Some(file.clone());
            cluster.certificate_authority_data = None;
        }
    }
    for named in &mut kubeconfig.auth_infos {
        if Some(&named.name) != options.user.as_ref() {
            continue;
        }
        let user = named.auth_info.get_or_insert_default();
        if let Some(token) = &overrides.token {
            user.token = Some(token.clone().into());
        }
        if let Some(file) = &overrides.client_certificate {
            user.client_certificate = Some(file.clone());
            user.client_certificate_data = None;
        }
        if let Some(file) = &overrides.client_key {
            user.client_key = Some(file.clone());
            user.client_key_data = None;
        }
    }
}

#[derive(Deserialize)]
struct MastersExtension {
    #[serde(default)]
    servers: Vec<String>,
}

/// Returns the cluster's server and, unless `--server` is given, the masters of its extension, without duplicates.
fn masters(kubeconfig: &Kubeconfig, cluster: Option<&str>, overrides: &Overrides) -> Result<Vec<String>> {
    if let Some(server) = &overrides.server {
        return Ok(vec![server.clone()]);
    }
    let Some(cluster) = kubeconfig
        .clusters
        .iter()
        .find(|named| Some(named.name.as_str()) == cluster)
        .and_then(|named| named.cluster.as_ref())
    else {
        return Ok(Vec::new());
    };
    let mut servers: Vec<String> = cluster.server.iter().cloned().collect();
    for extension in cluster.extensions.iter().flatten().filter(|extension| extension.name == MASTERS_EXTENSION) {
        let masters: MastersExtension = serde_json::from_value(extension.extension.clone()).map_err(|error| {
            CliError::usage(format!("the kubeconfig's extension {MASTERS_EXTENSION} is malformed: {error}"))
        })?;
        for server in masters.servers {
            if !servers.iter().any(|known| known.trim_end_matches('/') == server.trim_end_matches('/')) {
                servers.push(server);
            }
        }
    }
    if servers.is_empty() {
        return Err(CliError::usage("the kubeconfig's cluster names no server"));
    }
    Ok(servers)
}

#[cfg(test)]
mod tests;
