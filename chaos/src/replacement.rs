//! Replaces a lost member as an operator does it: asks the quorum for a token, starts the new process with it, and
//! waits until it has a vote.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::clients::rest::{Credentials, Rest};
use crate::cluster::Layout;
use crate::world::MemberIndex;

const DEADLINE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(300);

/// Progress of a replacement.
pub enum Replacement {
    /// The operator asks the quorum for a token.
    Asking(JoinHandle<String>),
    /// The new process joins with its token.
    Joining(JoinHandle<()>),
}

/// The administrator's client for the quorum.
#[derive(Clone)]
pub struct Operator {
    layout: Arc<Layout>,
    credentials: Credentials,
}

impl Operator {
    #[must_use]
    pub fn new(layout: Arc<Layout>, credentials: Credentials) -> Self {
        Operator { layout, credentials }
    }

    /// Asks until the quorum returns a token for a new `member`.
    #[must_use]
    pub fn ask(&self, member: MemberIndex) -> Replacement {
        let operator = self.clone();
        let place = &self.layout.places[member];
        let new = json!({
            "name": place.name,
            "peer": place.peer.to_string(),
            "api": format!("https://{}", place.api),
            "etcd": format!("http://{}", place.etcd),
            "replaces": place.name,
        });
        Replacement::Asking(tokio::spawn(async move {
            let token = |answer: &Value| answer["token"].as_str().map(str::to_owned);
            operator.until(member, Method::POST, "/quorum/members", Some(new), token).await
        }))
    }

    /// Waits until a member of this name is a reachable voter.
    #[must_use]
    pub fn await_vote(&self, member: MemberIndex) -> Replacement {
        let operator = self.clone();
        Replacement::Joining(tokio::spawn(async move {
            let name = operator.layout.places[member].name.clone();
            let votes = |quorum: &Value| {
                let members = quorum["members"].as_array()?;
                let mut named = members.iter().filter(|shown| shown["name"] == name.as_str());
                // Two members of this name mean that the old one is not removed yet.
                let (only, None) = (named.next()?, named.next()) else { return None };
                (only["voter"] == true && only["role"] != "unreachable").then_some(())
            };
            operator.until(member, Method::GET, "/quorum", None, votes).await;
        }))
    }

    /// Asks all other members in turn until one returns an answer that `read` accepts.
    async fn until<T>(
        &self,
        member: MemberIndex,
        method: Method,
        path: &str,
        body: Option<Value>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> T {
        loop {
            for other in (0..self.layout.places.len()).filter(|other| *other != member) {
                let mut rest = Rest::new(self.layout.clone(), self.credentials.clone(), other);
                let answer = rest.request(method.clone(), path, body.as_ref(), DEADLINE).await;
                // A member that is down or has no leader is skipped.
                if let Ok((status, answer)) = answer
                    && status.is_success()
                    && let Some(found) = read(&answer)
                {
                    return found;
                }
            }
            sleep(AGAIN).await;
        }
    }
}
