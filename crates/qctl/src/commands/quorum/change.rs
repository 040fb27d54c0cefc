//! Changes of the quorum: members that join or leave, and transfers of leadership.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::Call;

#[derive(Debug, clap::Subcommand)]
pub enum Change {
    /// Invite a new master; prints the command to run there, with a token that works once
    Add(Add),
    /// Remove a master; it leaves as soon as the number of voters stays odd without it
    Remove {
        /// The name or id of the master
        member: String,
    },
    /// Invite a new master to replace another one, which may be dead or alive
    Replace(Replace),
    /// Give a learner a vote, or cancel the removal of a master
    Promote {
        /// The name or id of the master
        member: String,
    },
    /// Change the addresses of a master
    Update(Update),
    /// Hand leadership to another master
    Transfer {
        /// The name or id of the new leader; by default the master with the most complete log
        to: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub struct Add {
    #[command(flatten)]
    new: New,
    /// Add the master as a learner, which gets no vote until it is promoted
    #[arg(long)]
    learner: bool,
}

#[derive(Debug, clap::Args)]
pub struct Replace {
    /// The name or id of the master to replace
    old: String,
    #[command(flatten)]
    new: New,
}

#[derive(Debug, clap::Args)]
struct New {
    /// The name of the new master
    name: String,
    /// The address at which the other masters reach it, HOST:PORT
    #[arg(long)]
    peer: String,
    /// The URL of its REST API [default: the host of --peer and the port on which it listens]
    #[arg(long)]
    api: Option<String>,
    /// The URL of its etcd API [default: the host of --peer and the port on which it listens]
    #[arg(long)]
    etcd: Option<String>,
    /// Print only the token
    #[arg(long)]
    token_only: bool,
}

#[derive(Debug, clap::Args)]
pub struct Update {
    /// The name or id of the master
    member: String,
    #[arg(long)]
    peer: Option<String>,
    #[arg(long)]
    api: Option<String>,
    #[arg(long)]
    etcd: Option<String>,
}

/// The response of the server.
#[derive(Debug, Deserialize)]
struct Changed {
    member: Member,
    token: Option<String>,
    waits: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Member {
    name: String,
}

impl Change {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Change::Add(Add { new, learner }) => invite(session, new, &json!({ "learner": learner })).await,
            Change::Replace(Replace { old, new }) => invite(session, new, &json!({ "replaces": old })).await,
            Change::Remove { member } => {
                let changed = send(session, Method::DELETE, &member_path(&member, ""), None).await?;
                report(session, &changed, "removed")
            }
            Change::Promote { member } => {
                let changed = send(session, Method::POST, &member_path(&member, "/promote"), None).await?;
                report(session, &changed, "has a vote")
            }
            Change::Update(Update { member, peer, api, etcd }) => {
                if peer.is_none() && api.is_none() && etcd.is_none() {
                    return Err(CliError::usage("nothing to change; give --peer, --api or --etcd"));
                }
                let body = json!({ "peer": peer, "api": api, "etcd": etcd });
                let changed = send(session, Method::PATCH, &member_path(&member, ""), Some(&body)).await?;
                report(session, &changed, "updated")
            }
            Change::Transfer { to } => {
                let changed = send(session, Method::POST, "/quorum/transfer", Some(&json!({ "to": to }))).await?;
                report(session, &changed, "leads")
            }
        }
    }
}

fn member_path(member: &str, rest: &str) -> String {
    let name: String = percent_encoding::utf8_percent_encode(member, percent_encoding::NON_ALPHANUMERIC).collect();
    format!("/quorum/members/{name}{rest}")
}

async fn send(session: &mut Session, method: Method, path: &str, body: Option<&Value>) -> Result<Changed> {
    let mut call = Call::new(method, RequestPath::raw(path));
    if let Some(body) = body {
        call = call.body(body);
    }
    let answer = session.transport.json(&call).await?;
    serde_json::from_value(answer).map_err(|error| CliError::Answer(format!("{path}: {error}")))
}

fn report(session: &mut Session, changed: &Changed, done: &str) -> Result<()> {
    match &changed.waits {
        None => session.streams.line(format!("{} {done}", changed.member.name)),
        Some(waits) => session.streams.line(waits),
    }
}

async fn invite(session: &mut Session, new: New, how: &Value) -> Result<()> {
    let New { name, peer, api, etcd, token_only } = new;
    let mut body =
        json!({ "name": name, "peer": peer, "api": api.unwrap_or_default(), "etcd": etcd.unwrap_or_default() });
    if let (Some(body), Some(how)) = (body.as_object_mut(), how.as_object()) {
        body.extend(how.clone());
    }
    let changed = send(session, Method::POST, "/quorum/members", Some(&body)).await?;
    let token = changed.token.ok_or_else(|| CliError::Answer("/quorum/members: no token".to_owned()))?;
    if token_only {
        return session.streams.line(token);
    }
    session.streams.line(format!("{name} may join within a day. On its machine, with its certificates in place:\n"))?;
    session.streams.line(format!("  quorate server --config server.toml --name {name} --join {token}\n"))?;
    session.streams.line("The token works once. A master that has joined does not need it after a restart.")?;
    if let Some(waits) = changed.waits {
        session.streams.line(waits)?;
    }
    Ok(())
}
