//! Joining machines, and the renewal of workers' certificates.
//!
//! A machine is identified by its key. A worker's name belongs to the key that joined under it as long as its Node
//! exists.

use std::net::IpAddr;

use quorate_api::{Reason, Status, name};
use quorate_pki::{Authorities, PkiError, SigningRequest, Subject, Usage};
use quorate_store::{Change, Consistency, Intent, Invite, Member};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::hosts::{Purpose, TakenHosts, Worker, hosts, is_reserved};
use super::tokens::{self, Role};
use super::{authorities, now_seconds, rows, served};
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

/// The request of a joining machine. Unknown fields are ignored, since the machine may run a newer version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
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

/// The request of a worker to renew its certificates. Unknown fields are ignored, since it may run a newer version.
#[derive(Deserialize)]
pub(super) struct RenewRequest {
    request: String,
}

/// The key under which a worker's name is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    key: String,
    joined_seconds: i64,
    /// Addresses for which its certificates were requested and not refused; `None` in rows of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpAddr>>,
}

fn addresses(signing: &SigningRequest) -> Vec<IpAddr> {
    signing.addresses.iter().map(IpAddr::to_canonical).collect()
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
    // Only a machine with a valid token learns why its hosts are refused, and a refused machine does not use it up.
    let (_, token) = tokens::find(api.store(), &request.token).await?;
    token.used(request.role, &signing.key_pin(), &request.name, now_seconds())?;
    match request.role {
        Role::Worker => {
            let name = &request.name;
            let hosts = check_hosts(api, &Worker { name, signing: &signing, from, purpose: Purpose::Join }).await?;
            redeem_token(api, &request, &signing).await?;
            tracing::info!(name, role = %request.role, ?from, "a machine joins");
            sign_worker(api, &authorities, name, &signing, hosts).await
        }
        Role::Master => {
            check_master(api, &request.name, token.replaces.as_deref()).await?;
            let replaces = redeem_token(api, &request, &signing).await?;
            tracing::info!(name = request.name, role = %request.role, ?from, "a machine joins");
            invite_master(api, &authorities, request, replaces).await
        }
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
            let known = machine.value.as_ref().filter(|machine| machine.key == key.as_str());
            // The use and the row are written together, so the row was deleted since.
            if known.is_none() && used == token {
                return Err(removed_since(&request.name));
            }
            if known.is_none() {
                check_name(api, &request.name, machine.value.as_ref()).await?;
            }
            let joined_seconds = known.map_or_else(now_seconds, |machine| machine.joined_seconds);
            let new = Machine { key: key.to_string(), joined_seconds, addresses: Some(addresses(signing)) };
            if known != Some(&new) {
                compare.push(machine.unchanged());
                writes.push(machine.put(&new)?);
            }
        }
        if writes.is_empty() || rows::commit(store, compare, writes).await? {
            return Ok(token.replaces);
        }
    }
    Err(Status::unavailable("many machines are joining at the same time; try again"))
}

/// Refuses a machine that presents the token with which it joined before its Node was deleted.
fn removed_since(name: &str) -> Status {
    let message = format!(
        "this token has let the machine in before, and its Node {name} was deleted since; use a new token of `qctl token \
         create --role worker`"
    );
    Status::new(Reason::Forbidden, message)
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

/// Checks that no other master has the name of a new one, which may have the name of the master that it replaces.
async fn check_master(api: &Api, name: &str, replaces: Option<&str>) -> Result<(), Status> {
    let members = api.store().quorum_status().await.map_err(|e| error::from_store(&e))?.members;
    let has_name = |member: &Member| member.name == name && member.intent != Intent::Leaving;
    if replaces == Some(name) || !members.iter().any(|status| has_name(&status.member)) {
        return Ok(());
    }
    let message = format!(
        "the name {name:?} is taken: another master has it. Choose another with --name, or, if that master is gone, use a \
         token of `qctl token create --role master --replaces {name}`"
    );
    Err(Status::new(Reason::Conflict, message))
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
    for _ in 0..ATTEMPTS {
        let row = rows::read::<Machine>(api.store(), format!("{PREFIX}{name}")).await?;
        let Some(machine) = &row.value else { return refuse(&deleted(name)) };
        if machine.key != signing.key_pin().as_str() {
            return refuse("another machine has joined under this name since");
        }
        let purpose = Purpose::Renew { signed: machine.addresses.as_deref() };
        let hosts = check_hosts(api, &Worker { name, signing: &signing, from, purpose }).await?;
        let renewed = Machine { addresses: Some(addresses(&signing)), ..machine.clone() };
        if renewed == *machine || rows::commit(api.store(), vec![row.unchanged()], vec![row.put(&renewed)?]).await? {
            return sign_worker(api, &authorities, name, &signing, hosts).await;
        }
    }
    Err(Status::unavailable("the machine's row changes all the time; try again"))
}

/// Explains why a worker without a row cannot renew its certificates.
fn deleted(name: &str) -> String {
    format!(
        "the Node {name} with which this worker joined was deleted, so it was removed from the cluster. To let it join again, \
         stop its agent, run `qctl delete node {name}`, and start the agent with a new `--token` of `qctl token create \
         --role worker`. Certificates that were made by hand are renewed where they were made"
    )
}

/// Returns the hosts of a worker's serving certificate.
///
/// # Errors
/// `Forbidden` when it may not have one of them; errors of the store.
async fn check_hosts(api: &Api, worker: &Worker<'_>) -> Result<Vec<String>, Status> {
    // This read is linearizable, so that a master that was just added or invited is among the members.
    let served = served::read_all(api).await?;
    let quorum = api.store().quorum_status().await.map_err(|e| error::from_store(&e))?;
    let members = || quorum.members.iter().map(|status| &status.member);
    let served = members().filter_map(|member| served.get(&member.name));
    hosts(worker, &TakenHosts::new(members().chain(&quorum.invited), served, api.pools()))
}

async fn sign_worker(
    api: &Api,
    authorities: &Authorities,
    name: &str,
    signing: &SigningRequest,
    hosts: Vec<String>,
) -> Result<Response, Status> {
    let members = api.store().quorum_status().await.map_err(|e| error::from_store(&e))?.members;
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
