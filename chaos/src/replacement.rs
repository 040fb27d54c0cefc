//! Has the quorum take a new member in the place of a lost one, as an operator does it: ask for a token, start the new
//! process with it, wait until it has a vote.

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

/// Where a replacement is.
pub enum Replacement {
    /// The quorum is asked for a token.
    Asking(JoinHandle<String>),
    /// The new process is to join with its token.
    Joining(JoinHandle<()>),
}

/// Who asks.
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

    /// Asks until there is a token for a new `member`.
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

    /// Waits until a member of this name votes and is there.
    #[must_use]
    pub fn await_vote(&self, member: MemberIndex) -> Replacement {
        let operator = self.clone();
        Replacement::Joining(tokio::spawn(async move {
            let name = operator.layout.places[member].name.clone();
            let votes = |quorum: &Value| {
                let members = quorum["members"].as_array()?;
                let mut named = members.iter().filter(|shown| shown["name"] == name.as_str());
                // While there are two, the old one is not gone.
                let (only, None) = (named.next()?, named.next()) else { return None };
                (only["voter"] == true && only["role"] != "unreachable").then_some(())
            };
            operator.until(member, Method::GET, "/quorum", None, votes).await;
        }))
    }

    /// Asks all others in turn until one gives an answer that `read` takes.
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
                // A member that is down, or without a leader, is a reason to go on asking.
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
