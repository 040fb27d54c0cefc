//! The setup of masters: the first one, which creates the authorities, and those that join it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use quorate_apiserver::{Api, Role, TokenRequest, create_token};
use quorate_pki::{
    Authorities, Authority, JoinToken, Machine, Pair, Subject, Usage, canonical_host, read, write_private,
};
use quorate_store::raft;
use quorate_store::{Member, Store, Token};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::client::{JOIN_TIMEOUT, Masters, check_cluster};
use super::{address, block_on, is_due};
use crate::config::server::{ADMIN, KEPT_FILE, NODE_CLIENT, PEER, SERVER};
use crate::config::{Join, Managed, MemberSpec, ServerConfig};
use crate::kubeconfig;
use crate::logging::progress;
use crate::server::STORE_DIRECTORY;

/// Marker file beside the authorities, which records that a quorum was founded with them.
const FOUNDED: &str = "founded";
/// Number of workers that the first token admits.
const WORKERS: u32 = 10;
const ADMINISTRATORS: &str = "system:masters";

/// Whether this start founds a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founding(bool);

/// A master's own certificates and the authorities that sign them.
pub struct OwnCertificates {
    pub authorities: Arc<Authorities>,
    certificates: Vec<(bool, Pair, Subject)>,
}

/// The token for the quorum that a master gave, in a file until this master has joined.
pub struct Invitation(PathBuf);

/// What an invitation was requested with. The join token names the member that the new one replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terms {
    token_id: String,
    name: String,
    peer: String,
    api: String,
    etcd: String,
}

impl Terms {
    fn new(config: &ServerConfig, host: &str, token: &JoinToken) -> Terms {
        Terms {
            token_id: token.id.clone(),
            name: config.name.clone(),
            peer: peer_address(config, host),
            api: api_url(config, host),
            etcd: etcd_url(config, host),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SavedInvitation {
    invitation: String,
    terms: Terms,
}

impl Invitation {
    pub fn of(config: &ServerConfig) -> Invitation {
        Invitation(config.pki().join("invitation"))
    }

    /// Returns the token if it was given on these terms. The quorum would admit this master under the old ones.
    fn read(&self, terms: &Terms) -> anyhow::Result<Option<Token>> {
        if !self.0.exists() {
            return Ok(None);
        }
        // A file that cannot be used is as good as none.
        let saved: Option<SavedInvitation> = serde_json::from_str(&read(&self.0)?).ok();
        Ok(saved.filter(|saved| saved.terms == *terms).and_then(|saved| saved.invitation.parse().ok()))
    }

    fn write(&self, token: &Token, terms: &Terms) -> anyhow::Result<()> {
        let saved = SavedInvitation { invitation: token.to_string(), terms: terms.clone() };
        Ok(write_private(&self.0, &serde_json::to_vec(&saved)?)?)
    }

    /// Forgets the token, once it is used or refused.
    pub fn remove(&self) -> anyhow::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct JoinAnswer {
    cluster: PemPair,
    peers: PemPair,
    invitation: Option<String>,
    waits: Option<String>,
}

#[derive(Deserialize)]
struct PemPair {
    certificate: String,
    key: String,
}

/// Prepares the authorities and certificates, and determines how this master enters its quorum. Does nothing when the
/// certificates are given as files.
pub fn prepare(config: &mut ServerConfig) -> anyhow::Result<Founding> {
    let Some(managed) = config.managed.clone() else { return Ok(Founding(false)) };
    let pki = config.pki();
    make_private(&config.data_dir)?;
    let owner = raft::owner(&config.data_dir.join(STORE_DIRECTORY))?;
    let host = advertised(&managed, owner.as_ref(), config.join.as_ref())?;
    let mut founding = Founding(false);
    if let Some(owner) = owner.as_ref().filter(|owner| owner.name != config.name) {
        bail!(
            "{} belongs to the master {}, not to {}; give --name",
            config.data_dir.display(),
            owner.name,
            config.name
        );
    }
    match (&owner, config.join.clone()) {
        (Some(_), _) => ensure!(
            Authorities::exist(&pki),
            "{} has a store, but {} has no authorities: give the certificate files, or copy {} from another master",
            config.data_dir.display(),
            pki.display(),
            pki.display()
        ),
        (None, Some(Join::Masters { token, hosts })) => {
            if Pair::new(&pki, Authorities::CLUSTER).cert.exists() {
                check_cluster(&read(&Pair::new(&pki, Authorities::CLUSTER).cert)?, &token.pin)?;
            }
            // After an interruption the quorum may have let this directory in already. It then refuses another request
            // under its name, but knows the directory again. Other terms need another invitation.
            let terms = Terms::new(config, &host, &token);
            let earlier = Invitation::of(config).read(&terms)?.filter(|_| Authorities::exist(&pki));
            let invitation = match earlier {
                Some(earlier) => earlier,
                None => {
                    let answer = request_join(config, &terms, &token, &hosts)?;
                    let invitation = save_authorities(&pki, &managed, &token.pin, answer)?;
                    Invitation::of(config).write(&invitation, &terms)?;
                    invitation
                }
            };
            config.join = Some(Join::Peers(invitation));
        }
        (None, Some(Join::Peers(_))) => bail!(
            "a token of `qctl quorum add` provides no certificates: give the certificate files, or use a token of \
             `qctl token create --role master`"
        ),
        (None, None) if !config.founders.is_empty() => ensure!(
            Authorities::exist(&pki),
            "`members` founds a quorum with certificates of your own, and `client-ca-file` and the other files are not set; \
             `--init` founds one with certificates that Quorate issues"
        ),
        (None, None) if managed.init => {
            ensure!(
                !pki.join(FOUNDED).exists(),
                "{} is gone, but this master has founded a quorum with it before. If other masters of that quorum are left, \
                 let this one join them again (`qctl token create --role master --replaces {}`, with an empty {}); \
                 otherwise restore a backup",
                config.data_dir.join(STORE_DIRECTORY).display(),
                config.name,
                config.data_dir.display()
            );
            Authorities::open(&pki, managed.lifetimes)?;
            config.founders = vec![founder(config, &host)];
            founding = Founding(true);
        }
        (None, None) => bail!(
            "{} does not belong to a cluster yet: use `--init` to found one, `--join TOKEN@HOST:PORT` to join one, or give \
             certificates of your own as files (see config/server.toml)",
            config.data_dir.display()
        ),
    }
    let own = OwnCertificates::new(config, &managed, &host)?;
    own.renew()?;
    own.write_kubeconfig(config, &[api_url(config, &host)])?;
    if let Some(options) = &managed.options {
        let mut options = (**options).clone();
        options.name = Some(config.name.clone());
        options.advertise = Some(host);
        let text = toml::to_string(&options).context("the options cannot be written")?;
        write_private(&config.data_dir.join(KEPT_FILE), text.as_bytes())?;
    }
    Ok(founding)
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    created.with_context(|| format!("cannot create {}; choose another with --data-dir", dir.display()))
}

/// Returns the host under which others reach this master.
fn advertised(managed: &Managed, owner: Option<&Member>, join: Option<&Join>) -> anyhow::Result<String> {
    if let Some(host) = &managed.advertise {
        return Ok(host.clone());
    }
    if let Some((host, _)) = owner.and_then(|owner| owner.peer.rsplit_once(':')) {
        return Ok(canonical_host(host));
    }
    let found = match join {
        Some(Join::Masters { hosts, .. }) => address::towards(hosts),
        _ => address::own(),
    };
    Ok(found.context("`advertise` is not set")?.to_string())
}

fn api_url(config: &ServerConfig, host: &str) -> String {
    format!("https://{}", address::with_port(host, config.api_listen.port()))
}

fn peer_address(config: &ServerConfig, host: &str) -> String {
    address::with_port(host, config.peer_listen.port())
}

fn etcd_url(config: &ServerConfig, host: &str) -> String {
    let url = |etcd: crate::config::server::EtcdConfig| {
        format!("{}://{}", if etcd.plain { "http" } else { "https" }, address::with_port(host, etcd.listen.port()))
    };
    config.etcd.map(url).unwrap_or_default()
}

fn founder(config: &ServerConfig, host: &str) -> MemberSpec {
    MemberSpec {
        // The id is exact in every JSON parser. It is random rather than 1, because the cluster's id is derived from
        // the founders' ids.
        id: (rand::random::<u64>() >> 11) | 1,
        name: config.name.clone(),
        peer: peer_address(config, host),
        api: api_url(config, host),
        etcd: etcd_url(config, host),
    }
}

fn request_join(
    config: &ServerConfig,
    terms: &Terms,
    token: &JoinToken,
    hosts: &[String],
) -> anyhow::Result<JoinAnswer> {
    let machine = Machine::open(&Pair::new(&config.pki(), SERVER))?;
    let body = json!({
        "token": format!("{}.{}", token.id, token.secret),
        "role": "master",
        "name": terms.name,
        "request": machine.request(&[])?,
        "peer": terms.peer,
        "api": terms.api,
        "etcd": terms.etcd,
    });
    let masters = Masters::new(hosts);
    let (_, answer) =
        block_on(masters.join::<JoinAnswer>(token, &body, JOIN_TIMEOUT)).context("this master cannot join")?;
    Ok(answer)
}

/// Saves the authorities that a master has sent, and returns the token for the quorum.
fn save_authorities(
    pki: &Path,
    managed: &Managed,
    pin: &quorate_pki::Pin,
    answer: JoinAnswer,
) -> anyhow::Result<Token> {
    let authority = |pair: &PemPair| Authority::from_pem(&pair.certificate, &pair.key);
    let authorities = Authorities {
        cluster: authority(&answer.cluster)?,
        peers: authority(&answer.peers)?,
        lifetimes: managed.lifetimes,
    };
    ensure!(authorities.cluster.pin() == pin, "the master sent another authority than the token names");
    authorities.save(pki)?;
    if let Some(waits) = answer.waits {
        tracing::info!(waits, "joined without a vote for now");
    }
    let invitation = answer.invitation.context("the master gave no token for the quorum")?;
    invitation.parse().map_err(|error: String| anyhow::anyhow!(error))
}

impl OwnCertificates {
    pub fn new(config: &ServerConfig, managed: &Managed, host: &str) -> anyhow::Result<OwnCertificates> {
        let pki = config.pki();
        let authorities = Arc::new(Authorities::load(&pki, managed.lifetimes)?);
        let mut hosts = vec![host.to_owned(), config.name.clone()];
        hosts.extend(super::api_hosts(&config.pools));
        hosts.extend(managed.tls_names.iter().cloned());
        let machine_name = nix::unistd::gethostname()?.to_string_lossy().to_lowercase();
        hosts.extend(Some(machine_name).filter(|name| !name.is_empty()));
        let mut seen = Vec::new();
        hosts.retain(|host| {
            let is_new = !seen.contains(host);
            seen.push(host.clone());
            is_new
        });
        let pair = |name: &str| Pair::new(&pki, name);
        let subject = |user: &str, group: Option<&str>, hosts: Vec<String>, usage| Subject {
            user: user.to_owned(),
            group: group.map(str::to_owned),
            hosts,
            usage,
        };
        let name = &config.name;
        let certificates = vec![
            (false, pair(SERVER), subject(name, None, hosts, Usage::Server)),
            (true, pair(PEER), subject(name, None, vec![host.to_owned()], Usage::Peer)),
            (false, pair(NODE_CLIENT), subject("quorate:apiserver", Some(ADMINISTRATORS), Vec::new(), Usage::Client)),
            (false, pair(ADMIN), subject("kubernetes-admin", Some(ADMINISTRATORS), Vec::new(), Usage::Client)),
        ];
        Ok(OwnCertificates { authorities, certificates })
    }

    /// Returns the certificates of a running master, whose host is known; `None` when they are given as files.
    pub fn of_running(config: &ServerConfig, member: &Member) -> anyhow::Result<Option<OwnCertificates>> {
        let Some(managed) = &config.managed else { return Ok(None) };
        let host = advertised(managed, Some(member), None)?;
        OwnCertificates::new(config, managed, &host).map(Some)
    }

    /// Renews the certificates that are due. Returns whether there were any.
    pub fn renew(&self) -> anyhow::Result<bool> {
        let mut is_changed = false;
        for (is_of_peers, pair, subject) in &self.certificates {
            if is_due(&pair.cert, &subject.hosts)? {
                let authority = if *is_of_peers { &self.authorities.peers } else { &self.authorities.cluster };
                authority.issue(pair, subject, self.authorities.lifetimes.certificate)?;
                tracing::info!(certificate = %pair.cert.display(), "signed");
                is_changed = true;
            }
        }
        Ok(is_changed)
    }

    /// Writes the administrator's kubeconfig for these masters.
    pub fn write_kubeconfig(&self, config: &ServerConfig, servers: &[String]) -> anyhow::Result<()> {
        let pki = config.pki();
        let (ca, admin) = (Pair::new(&pki, Authorities::CLUSTER).cert, Pair::new(&pki, ADMIN));
        kubeconfig::write(&config.data_dir.join("kubeconfig"), "quorate", servers, &ca, &admin)
    }
}

/// Prints the commands with which other machines join a newly founded cluster.
pub async fn announce(
    founding: Founding,
    config: ServerConfig,
    api: Api,
    store: Store,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if !founding.0 {
        return Ok(());
    }
    write_private(&config.pki().join(FOUNDED), b"")?;
    let mut leadership = store.leadership();
    tokio::select! {
        led = leadership.wait_for(|leadership| leadership.is_active_leader) => drop(led),
        () = shutdown.cancelled() => return Ok(()),
    }
    let token = async |role, uses| {
        let request = TokenRequest {
            role,
            uses: Some(uses),
            ttl_seconds: None,
            description: "created by --init".to_owned(),
            replaces: None,
        };
        let created = create_token(&api, request).await;
        created
            .map_err(|status| anyhow::anyhow!(status.message))
            .context("no token can be created; use `qctl token create`")
    };
    let (master, worker) = (token(Role::Master, 1).await?, token(Role::Worker, WORKERS).await?);
    progress(format!(
        "{} has founded a cluster. To use it:\n\n  export KUBECONFIG={}\n\nTo add a master, run this on another machine within a \
         day (for each further master, run `qctl token create --role master`):\n\n  {}\n\nTo add up to {WORKERS} workers, \
         run this on each machine within a day:\n\n  {}\n",
        config.name,
        config.data_dir.join("kubeconfig").display(),
        master.command,
        worker.command,
    ));
    Ok(())
}

/// Returns the interval at which a master checks its certificates.
pub fn check_interval(config: &ServerConfig) -> Duration {
    let lifetime = config.managed.as_ref().map(|managed| managed.lifetimes.certificate);
    super::check_interval(lifetime.unwrap_or(Duration::from_secs(3600)))
}

#[cfg(test)]
mod tests {
    use quorate_pki::{Lifetimes, details};

    use super::*;
    use crate::config::ServerOptions;

    fn options(dir: &Path) -> ServerOptions {
        ServerOptions {
            name: Some("m2".to_owned()),
            data_dir: Some(dir.to_owned()),
            advertise: Some("127.0.0.1".to_owned()),
            ..ServerOptions::default()
        }
    }

    #[test]
    fn an_interrupted_join_goes_on_with_its_invitation() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authorities = Authorities::open(&dir.path().join("pki"), Lifetimes::default()).expect("authorities");
        // No master listens at this address, so a request would fail.
        let token = JoinToken::new(authorities.cluster.pin().clone());
        let join = Some(format!("{token}@127.0.0.1:1"));
        let mut config = ServerOptions { join, ..options(dir.path()) }.resolve().expect("options");
        let terms = Terms::new(&config, "127.0.0.1", &token);
        let invitation: Token = "000000ab.secret@127.0.0.1:2380".parse().expect("a token");
        Invitation::of(&config).write(&invitation, &terms).expect("written");
        prepare(&mut config).expect("it asks nobody");
        assert!(matches!(&config.join, Some(Join::Peers(found)) if found.secret == "secret"), "{:?}", config.join);
        // The operator has changed what the invitation stands for.
        let (other_token, renamed) =
            (JoinToken::new(token.pin.clone()), ServerConfig { name: "m3".to_owned(), ..config.clone() });
        for other in [
            Terms::new(&config, "127.0.0.2", &token),
            Terms::new(&config, "127.0.0.1", &other_token),
            Terms::new(&renamed, "127.0.0.1", &token),
            Terms { etcd: "https://127.0.0.1:9".to_owned(), ..terms.clone() },
        ] {
            assert!(Invitation::of(&config).read(&other).expect("a file").is_none(), "{other:?}");
        }
        assert!(Invitation::of(&config).read(&terms).expect("a file").is_some());
        Invitation::of(&config).remove().expect("removed");
        Invitation::of(&config).remove().expect("it is gone already");
        assert!(Invitation::of(&config).read(&terms).expect("no file").is_none());
    }

    #[test]
    fn a_masters_certificate_holds_the_names_and_the_address_of_its_service() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = ServerOptions {
            init: Some(true),
            service_cidr: Some(vec!["10.50.0.0/16".to_owned()]),
            tls_names: Some(vec!["LB.example".to_owned()]),
            ..options(dir.path())
        };
        let mut config = options.resolve().expect("options");
        assert_eq!(prepare(&mut config).expect("certificates"), Founding(true));
        let found = details(read(&config.tls.cert).expect("a file").as_bytes()).expect("a certificate");
        for host in [
            "m2",
            "127.0.0.1",
            "10.50.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "lb.example",
        ] {
            assert!(found.hosts.contains(&host.to_owned()), "{host}: {:?}", found.hosts);
        }
        let own = OwnCertificates::new(&config, config.managed.as_ref().expect("managed"), "127.0.0.1");
        assert!(!own.expect("certificates").renew().expect("a check"), "nothing is due");
    }
}
