//! Joining machines, and the renewal of workers' certificates.
//!
//! A machine is identified by its key. A worker's name belongs to the key that joined under it as long as its Node
//! exists.

use std::collections::HashSet;
use std::net::IpAddr;

use quorate_api::{Reason, Status, name};
use quorate_pki::{Authorities, PkiError, SigningRequest, Subject, Usage};
use quorate_store::{Change, Consistency, Invite};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::tokens::{self, Role};
use super::{authorities, now_seconds, rows};
use crate::api::Api;
use crate::pipeline::read;
use crate::response::Response;
use crate::user::{NODES, UserInfo};
use crate::{error, quorum};

pub(super) const PREFIX: &str = "/quorate/machines/";

/// Number of attempts when other machines join at the same time.
const ATTEMPTS: u32 = 10;
/// Time in which a worker that has just joined must register its Node; until then its name stays taken.
const REGISTERS_WITHIN_SECONDS: i64 = 600;

/// The request of a joining machine.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct JoinRequest {
    /// The token, as `ID.SECRET`.
    token: String,
    role: Role,
    name: String,
    /// A certificate signing request in PEM, which proves the machine's key.
    request: String,
    /// The addresses at which others reach a new master: its peer, API and etcd URLs.
    #[serde(default)]
    peer: String,
    #[serde(default)]
    api: String,
    #[serde(default)]
    etcd: String,
}

/// The request of a worker to renew its certificates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewRequest {
    request: String,
}

/// The key under which a worker's name is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    key: String,
    joined_seconds: i64,
}

fn unusable(error: &PkiError) -> Status {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    Status::bad_request(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// Lets a machine that presents a token join.
///
/// # Errors
/// `Unauthorized` or `Forbidden` for the token, `Conflict` for the name, `BadRequest` for the request.
pub(super) async fn join(api: &Api, request: JoinRequest, from: Option<IpAddr>) -> Result<Response, Status> {
    let authorities = authorities(api)?;
    let signing = SigningRequest::from_pem(&request.request).map_err(|error| unusable(&error))?;
    if let Some(problem) = name::dns1123_subdomain(&request.name).first() {
        return Err(Status::bad_request(format!("the name {:?} cannot be used: {problem}", request.name)));
    }
    if request.role == Role::Worker && is_reserved(&request.name) {
        let message = format!("the name {:?} is an API server's; choose another with --node-name", request.name);
        return Err(Status::new(Reason::Forbidden, message));
    }
    let replaces = redeem_token(api, &request, &signing).await?;
    tracing::info!(name = request.name, role = %request.role, ?from, "a machine joins");
    match request.role {
        Role::Worker => sign_worker(api, &authorities, &request.name, &signing, from).await,
        Role::Master => invite_master(api, &authorities, request, replaces).await,
    }
}

/// Records the machine's use of its token and takes the worker's name for it, in one transaction, so that two masters
/// asked at the same time do not both let a machine in. Returns the name of the member that a new master replaces.
async fn redeem_token(api: &Api, request: &JoinRequest, signing: &SigningRequest) -> Result<Option<String>, Status> {
    let store = api.store();
    let key = signing.key_pin();
    for _ in 0..ATTEMPTS {
        let (row, token) = tokens::find(store, &request.token).await?;
        let used = token.used(request.role, &key, &request.name, now_seconds())?;
        let (mut compare, mut writes) = (vec![row.unchanged()], Vec::new());
        if used != token {
            writes.push(row.put(&used)?);
        }
        if request.role == Role::Worker {
            let machine = rows::read::<Machine>(store, format!("{PREFIX}{}", request.name)).await?;
            let is_known = machine.value.as_ref().is_some_and(|machine| machine.key == key.as_str());
            if !is_known {
                check_name(api, &request.name, machine.value.as_ref()).await?;
                compare.push(machine.unchanged());
                writes.push(machine.put(&Machine { key: key.to_string(), joined_seconds: now_seconds() })?);
            }
        }
        if writes.is_empty() || rows::commit(store, compare, writes).await? {
            return Ok(token.replaces);
        }
    }
    Err(Status::unavailable("many machines are joining at the same time; try again"))
}

/// Checks that a name is free for another key than the one it was taken for.
async fn check_name(api: &Api, name: &str, taken: Option<&Machine>) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::new(Reason::Conflict, format!("the name {name:?} is taken: {why}")));
    let node = api.catalog().find("", "v1", "nodes").map(|nodes| nodes.key(None, name))?;
    if read::key(api.store(), &node, Consistency::Linearizable).await?.is_some() {
        return refuse(&format!(
            "another machine is the node {name}. Choose another with --node-name, or, if that machine is gone, run \
             `qctl delete node {name}` first"
        ));
    }
    let age = taken.map(|machine| now_seconds() - machine.joined_seconds);
    if age.is_some_and(|age| age < REGISTERS_WITHIN_SECONDS) {
        return refuse(
            "another machine has just joined under this name. Choose another with --node-name, or wait ten minutes",
        );
    }
    Ok(())
}

/// Renews a worker's certificates.
///
/// # Errors
/// `Forbidden` for anyone but a worker with the key with which it joined.
pub(super) async fn renew(
    api: &Api,
    user: &UserInfo,
    request: RenewRequest,
    from: Option<IpAddr>,
) -> Result<Response, Status> {
    let authorities = authorities(api)?;
    let refuse = |why: &str| Err(Status::new(Reason::Forbidden, why));
    let Some(name) = user.node() else { return refuse("only the certificates of workers are renewed here") };
    let signing = SigningRequest::from_pem(&request.request).map_err(|error| unusable(&error))?;
    let machine = rows::read::<Machine>(api.store(), format!("{PREFIX}{name}")).await?.value;
    match machine {
        Some(machine) if machine.key == signing.key_pin().as_str() => {
            sign_worker(api, &authorities, name, &signing, from).await
        }
        Some(_) => refuse("another machine has joined under this name since"),
        None => refuse("this worker has not joined with a token; renew its certificates where they were made"),
    }
}

async fn sign_worker(
    api: &Api,
    authorities: &Authorities,
    name: &str,
    signing: &SigningRequest,
    from: Option<IpAddr>,
) -> Result<Response, Status> {
    let members = api.store().quorum_status().await.map_err(|e| error::from_store(&e))?.members;
    let masters: HashSet<&str> = members
        .iter()
        .map(|status| &status.member)
        .flat_map(|member| [member.name.as_str(), host(&member.peer), host(&member.api), host(&member.etcd)])
        .collect();
    let hosts = hosts(name, signing, from, &masters)?;
    let user = format!("system:node:{name}");
    let client = Subject { user: user.clone(), group: Some(NODES.to_owned()), hosts: Vec::new(), usage: Usage::Client };
    let serving = Subject { user, group: Some(NODES.to_owned()), hosts, usage: Usage::Server };
    let sign = |subject| authorities.cluster.sign(&signing.public_key, subject, authorities.lifetimes.certificate);
    let urls: Vec<&str> = members.iter().map(|status| status.member.api.as_str()).collect();
    Response::json(&json!({
        "authority": authorities.cluster.certificate_pem(),
        "client": sign(&client).map_err(|error| unusable(&error))?,
        "serving": sign(&serving).map_err(|error| unusable(&error))?,
        "masters": urls,
    }))
}

/// Returns the host of `https://host:port` or `host:port`.
fn host(address: &str) -> &str {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']'])
}

/// Returns the hosts of a worker's serving certificate: its addresses, and its name unless a master has that name. One
/// authority signs for servers and workers, so a worker must not get a certificate with which it could pass for a
/// master.
fn hosts(
    name: &str,
    signing: &SigningRequest,
    from: Option<IpAddr>,
    masters: &HashSet<&str>,
) -> Result<Vec<String>, Status> {
    let refuse = |host: &str, why: &str| {
        let message = format!("a certificate for {host} cannot be signed for the worker {name}: {why}");
        Err(Status::new(Reason::Forbidden, message))
    };
    // Clients take an IPv4-mapped address for the IPv4 address in it.
    let canonical = |host: &&str| host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let masters_addresses: HashSet<IpAddr> = masters.iter().filter_map(canonical).collect();
    let from = from.map(|from| from.to_canonical());
    let mut hosts = Vec::new();
    for address in signing.addresses.iter().map(IpAddr::to_canonical) {
        let text = address.to_string();
        // A machine may be both master and worker. It then asks from the master's address.
        if masters_addresses.contains(&address) && from != Some(address) {
            return refuse(&text, "it is a master's address; give the machine's own with --node-ip");
        }
        let is_elsewhere = address.is_loopback() && from.is_some_and(|from| !from.is_loopback());
        if is_elsewhere || address.is_unspecified() {
            return refuse(&text, "others do not reach the machine there; give its own address with --node-ip");
        }
        hosts.push(text);
    }
    if let Some(other) = signing.names.iter().find(|other| *other != name) {
        return refuse(other, "a worker's certificate holds no other name");
    }
    if !masters.contains(name) && !is_reserved(name) {
        hosts.push(name.to_owned());
    }
    Ok(hosts)
}

/// Whether clients address API servers by this name, so that no worker may have a certificate for it. An address is no
/// name: it would be signed as one.
fn is_reserved(name: &str) -> bool {
    name == "localhost" || name == "kubernetes" || name.starts_with("kubernetes.") || name.parse::<IpAddr>().is_ok()
}

/// Returns the authorities' keys to a new master, and a token with which it enters the quorum.
async fn invite_master(
    api: &Api,
    authorities: &Authorities,
    request: JoinRequest,
    replaces: Option<String>,
) -> Result<Response, Status> {
    let JoinRequest { name, peer, api: url, etcd, .. } = request;
    let invite = Invite { name, peer, api: url, etcd, replaces, ..Invite::default() };
    let changed = api.store().change(Change::Invite(invite)).await.map_err(|error| quorum::refusal(&error))?;
    let pair = |authority: &quorate_pki::Authority| json!({ "certificate": authority.certificate_pem(), "key": authority.key_pem() });
    Response::json(&json!({
        "cluster": pair(&authorities.cluster),
        "peers": pair(&authorities.peers),
        "invitation": changed.token,
        "waits": changed.waits,
    }))
}

#[cfg(test)]
mod tests {
    use quorate_pki::{Machine as Joining, Pair};

    use super::*;

    #[test]
    fn a_worker_cannot_get_a_masters_certificate() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let machine = Joining::open(&Pair::new(dir.path(), "node")).expect("a key");
        let masters: HashSet<&str> = ["m1", "10.0.0.1", "api.example"].into();
        // The node's name, the hosts it asks for, the address it asks from, and the expected hosts.
        type Signed<'a> = Result<&'a [&'a str], &'a str>;
        let cases: [(&str, &[&str], &str, Signed<'_>); 12] = [
            ("w1", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4", "w1"])),
            ("w1", &["w1", "10.0.0.4"], "192.0.2.9", Ok(&["10.0.0.4", "w1"])),
            ("w1", &["10.0.0.1"], "10.0.0.4", Err("a master's address")),
            ("w1", &["10.0.0.1"], "::ffff:10.0.0.1", Ok(&["10.0.0.1", "w1"])),
            ("w1", &["m1"], "10.0.0.4", Err("no other name")),
            ("w1", &["kubernetes.default.svc"], "10.0.0.4", Err("no other name")),
            ("m1", &["10.0.0.1"], "10.0.0.1", Ok(&["10.0.0.1"])),
            ("w1", &["::ffff:10.0.0.1"], "10.0.0.4", Err("a master's address")),
            ("w1", &["127.0.0.1"], "10.0.0.4", Err("do not reach the machine there")),
            ("w1", &["127.0.0.1"], "127.0.0.1", Ok(&["127.0.0.1", "w1"])),
            ("kubernetes.default.svc", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4"])),
            ("10.96.0.1", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4"])),
        ];
        for (name, asked, from, expected) in cases {
            let asked: Vec<_> = asked.iter().map(|&host| host.to_owned()).collect();
            let signing = SigningRequest::from_pem(&machine.request(&asked).expect("a request")).expect("its own");
            let from = Some(from.parse().expect("an address"));
            match (hosts(name, &signing, from, &masters), expected) {
                (Ok(hosts), Ok(expected)) => assert_eq!(hosts, expected, "{name} {asked:?}"),
                (Err(refused), Err(part)) => assert!(refused.message.contains(part), "{refused:?}"),
                (found, expected) => panic!("{name} {asked:?}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn host_names_are_parsed_from_addresses() {
        for (address, expected) in
            [("https://10.0.0.1:6443", "10.0.0.1"), ("m1:2380", "m1"), ("https://[fd00::1]:6443", "fd00::1"), ("", "")]
        {
            assert_eq!(host(address), expected);
        }
    }
}
