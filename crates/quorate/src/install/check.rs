//! Checks of the options before anything is written, so that errors show here and not in the journal.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::ensure;

use super::{Target, below, should_start};
use crate::config::{AgentOptions, PKI_DIRECTORY, ServerOptions};
use crate::server::STORE_DIRECTORY;

pub(super) fn server(options: &ServerOptions, target: &Target) -> anyhow::Result<()> {
    absolute(&[
        ("data-dir", &options.data_dir),
        ("client-ca-file", &options.client_ca_file),
        ("tls-cert-file", &options.tls_cert_file),
        ("tls-key-file", &options.tls_key_file),
        ("peer-ca-file", &options.peer_ca_file),
        ("peer-cert-file", &options.peer_cert_file),
        ("peer-key-file", &options.peer_key_file),
        ("node-client-cert-file", &options.node_client_cert_file),
        ("node-client-key-file", &options.node_client_key_file),
    ])?;
    let config = options.clone().resolve()?;
    let has_origin = !config.founders.is_empty()
        || config.join.is_some()
        || config.managed.is_some_and(|managed| managed.init)
        || below(&target.root, config.data_dir.join(STORE_DIRECTORY)).exists();
    ensure!(
        has_origin || !should_start(target),
        "this master would not belong to a cluster: give --init to found one, or the --join that `qctl token create --role \
         master` prints"
    );
    Ok(())
}

pub(super) fn agent(options: &AgentOptions, target: &Target) -> anyhow::Result<()> {
    ensure!(
        options.masters.as_ref().is_some_and(|masters| !masters.is_empty()),
        "no master is named; give the line that `qctl token create --role worker` prints, with `quorate install agent` \
         instead of `quorate agent`"
    );
    absolute(&[
        ("data-dir", &options.data_dir),
        ("hollow-dir", &options.hollow_dir),
        ("ca-file", &options.ca_file),
        ("client-cert-file", &options.client_cert_file),
        ("client-key-file", &options.client_key_file),
        ("tls-cert-file", &options.tls_cert_file),
        ("tls-key-file", &options.tls_key_file),
    ])?;
    // The service finds out the address when it starts; here there may be no route yet.
    let node_ip = options.node_ip.or(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let config = AgentOptions { node_ip, ..options.clone() }.resolve()?;
    let client = below(&target.root, config.data_dir.join(PKI_DIRECTORY)).join("client.crt");
    let can_enter = config.managed.is_none_or(|managed| managed.token.is_some()) || client.exists();
    ensure!(
        can_enter || !should_start(target),
        "this worker has no certificates yet: give the --token that `qctl token create --role worker` prints"
    );
    Ok(())
}

/// Refuses relative paths, because systemd starts services in `/`.
fn absolute(paths: &[(&str, &Option<PathBuf>)]) -> anyhow::Result<()> {
    for (key, path) in paths {
        if let Some(path) = path {
            ensure!(
                path.is_absolute(),
                "`{key}` is {}; give an absolute path, since the service starts in /",
                path.display()
            );
        }
    }
    Ok(())
}
