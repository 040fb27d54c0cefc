//! ConfigMaps that clients share over REST: created, replaced with or without the resource version as an optimistic
//! lock, read, and deleted.

use std::collections::HashMap;
use std::time::Duration;

use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use super::rest::{Credentials, Failure, Rest};
use super::{Context, Recorded};
use crate::history::{Api, Operation, Outcome, Transaction, Value};

pub const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
/// Prefix of the objects' names.
pub const NAME: &str = "chaos-";
/// Deadline that leaves the server some time to find an unknown outcome.
const DEADLINE: Duration = Duration::from_secs(4);

/// Runs until the clients are stopped.
pub async fn run(context: Context, credentials: Credentials, name: String, seed: u64) -> Recorded {
    let mut rng = StdRng::seed_from_u64(seed);
    let members = context.layout.places.len();
    let member = rng.random_range(0..members);
    let mut rest = Rest::new(context.layout.clone(), credentials, member);
    let mut known: HashMap<String, (String, String)> = HashMap::new();
    let mut recorded = Recorded::new();
    while context.pause(&mut rng).await {
        let (slot, age) = context.configmaps.pick(&mut rng);
        let object = format!("{NAME}{slot}-{age}");
        let value = format!("{name}.{}", recorded.len());
        let call = choose(&object, value, known.get(&object), &mut rng);
        let called = context.clock.now();
        let answer = rest.request(call.method.clone(), &call.path, call.body.as_ref(), DEADLINE).await;
        let returned = context.clock.now();
        let member = rest.member;
        if !matches!(&answer, Ok((status, _)) if status.as_u16() < 500) || rng.random_bool(0.02) {
            rest.move_to((member + rng.random_range(1..members.max(2))) % members);
        }
        if known.len() > 1000 {
            known.clear();
        }
        let (request, outcome) = call.judge(&object, answer, &mut known);
        let client = name.clone();
        recorded.push(Operation { client, api: Api::Rest, object, member, called, returned, request, outcome });
    }
    recorded
}

struct Call {
    method: Method,
    path: String,
    body: Option<Json>,
    request: Transaction,
}

fn choose(name: &str, value: String, known: Option<&(String, String)>, rng: &mut StdRng) -> Call {
    let path = format!("{COLLECTION}/{name}");
    let object = |version: Option<&str>| {
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value},
        });
        if let Some(version) = version {
            object["metadata"]["resourceVersion"] = version.into();
        }
        Some(object)
    };
    match (rng.random_range(0..100), known) {
        (0..35, _) => Call { method: Method::GET, path, body: None, request: Transaction::get(name) },
        (35..40, _) => Call { method: Method::DELETE, path, body: None, request: Transaction::delete(name) },
        (40..50, Some(_)) => {
            Call { method: Method::PUT, path, body: object(None), request: Transaction::put(name, value.clone()) }
        }
        (_, Some((held, version))) => Call {
            method: Method::PUT,
            path,
            body: object(Some(version)),
            request: Transaction {
                expect: vec![(name.to_owned(), Some(held.clone()))],
                ..Transaction::put(name, value.clone())
            },
        },
        (_, None) => Call {
            method: Method::POST,
            path: COLLECTION.to_owned(),
            body: object(None),
            request: Transaction { expect: vec![(name.to_owned(), None)], ..Transaction::put(name, value.clone()) },
        },
    }
}

impl Call {
    /// Converts the answer to a transaction and its outcome, and remembers the object's value and version.
    fn judge(
        self,
        name: &str,
        answer: Result<(StatusCode, Json), Failure>,
        known: &mut HashMap<String, (String, String)>,
    ) -> (Transaction, Outcome) {
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(Failure::NotSent(reason)) => return (self.request, Outcome::Refused { reason }),
            Err(Failure::Lost(reason)) => return (self.request, Outcome::Unknown { reason }),
        };
        let done =
            |succeeded, observed: Vec<(String, Value)>, revision| Outcome::Done { succeeded, observed, revision };
        let reason = || format!("{status}: {}", body["message"].as_str().unwrap_or_default());
        match status.as_u16() {
            200 | 201 => {
                let version = body["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                let value = body["data"]["value"].as_str().map(str::to_owned);
                let revision = version.parse().unwrap_or(0);
                match (&self.method, value) {
                    (&Method::DELETE, _) | (_, None) => {
                        known.remove(name);
                    }
                    (_, Some(value)) => {
                        known.insert(name.to_owned(), (value, version));
                    }
                }
                if self.method == Method::GET {
                    let value = body["data"]["value"].as_str().map(str::to_owned);
                    return (self.request, done(true, vec![(name.to_owned(), value)], 0));
                }
                // The object in the answer to a deletion has an older revision, if any.
                let revision = if self.method == Method::DELETE { 0 } else { revision };
                (self.request, done(true, Vec::new(), revision))
            }
            404 if self.method != Method::POST => {
                known.remove(name);
                // The object did not exist, whatever the request was.
                (Transaction::get(name), done(true, vec![(name.to_owned(), None)], 0))
            }
            409 if !self.request.expect.is_empty() => {
                known.remove(name);
                (self.request, done(false, Vec::new(), 0))
            }
            400..500 => (self.request, Outcome::Refused { reason: reason() }),
            _ => (self.request, Outcome::Unknown { reason: reason() }),
        }
    }
}
