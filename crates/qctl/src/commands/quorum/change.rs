//! Changes of the quorum: who joins, who goes, who leads.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::Call;

#[derive(Debug, clap::Subcommand)]
pub enum Change {
    /// Ask a new master to join; prints the command to run there, with a token that works once
    Add(Add),
    /// Have a master leave; it goes when the number of voters can be odd without it
    Remove {
        /// Its name or id
        member: String,
    },
    /// Ask a new master to join in the place of another, dead or alive
    Replace(Replace),
    /// Give a learner a vote, or take back that a master is to leave
    Promote {
        /// Its name or id
        member: String,
    },
    /// Change the addresses under which a master is known
    Update(Update),
    /// Hand leadership to another master
    Transfer {
        /// Its name or id; without it, the one that has most of the log
        to: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub struct Add {
    #[command(flatten)]
    new: New,
    /// It gets no vote until it is promoted
    #[arg(long)]
    learner: bool,
}

#[derive(Debug, clap::Args)]
pub struct Replace {
    /// The name or id of the master that is to go
    old: String,
    #[command(flatten)]
    new: New,
}

#[derive(Debug, clap::Args)]
struct New {
    /// The name of the new master
    name: String,
    /// Where the other masters reach it, HOST:PORT
    #[arg(long)]
    peer: String,
    /// The URL of its REST API [default: the host of --peer, and the port that it listens on]
    #[arg(long)]
    api: Option<String>,
    /// The URL of its etcd API, likewise
    #[arg(long)]
    etcd: Option<String>,
    /// Print the token alone
    #[arg(long)]
    token_only: bool,
}

#[derive(Debug, clap::Args)]
pub struct Update {
    /// Its name or id
    member: String,
    #[arg(long)]
    peer: Option<String>,
    #[arg(long)]
    api: Option<String>,
    #[arg(long)]
    etcd: Option<String>,
}

/// The read side of the server's answer.
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
                tell(session, &changed, "removed")
            }
            Change::Promote { member } => {
                let changed = send(session, Method::POST, &member_path(&member, "/promote"), None).await?;
                tell(session, &changed, "has a vote")
            }
            Change::Update(Update { member, peer, api, etcd }) => {
                if peer.is_none() && api.is_none() && etcd.is_none() {
                    return Err(CliError::usage("nothing to change; give --peer, --api or --etcd"));
                }
                let body = json!({ "peer": peer, "api": api, "etcd": etcd });
                let changed = send(session, Method::PATCH, &member_path(&member, ""), Some(&body)).await?;
                tell(session, &changed, "updated")
            }
            Change::Transfer { to } => {
                let changed = send(session, Method::POST, "/quorum/transfer", Some(&json!({ "to": to }))).await?;
                tell(session, &changed, "leads")
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

fn tell(session: &mut Session, changed: &Changed, done: &str) -> Result<()> {
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
    session.streams.line("The token works once; what it lets in keeps its place over restarts.")?;
    if let Some(waits) = changed.waits {
        session.streams.line(waits)?;
    }
    Ok(())
}
