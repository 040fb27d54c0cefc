//! A ConfigMap that all clients increment over REST, with the resource version as an optimistic lock. Two clients that
//! read the same value write identical bytes, so only the server can tell their writes apart.

use std::time::Duration;

use http::Method;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use super::Context;
use super::objects::COLLECTION;
use super::rest::{Credentials, Failure, Rest};
use crate::history::{Counted, Increment};

/// Name of the counter, which no informer selects.
const NAME: &str = "counter";
/// Longer than the server takes to find the outcome of a write.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs until the clients are stopped.
pub async fn run(context: Context, credentials: Credentials, client: String, seed: u64) -> Vec<Increment> {
    let mut rng = StdRng::seed_from_u64(seed);
    let members = context.layout.places.len();
    let mut rest = Rest::new(context.layout.clone(), credentials, rng.random_range(0..members));
    let mut increments = Vec::new();
    while context.pause(&mut rng).await {
        let member = rest.member;
        let counted = match read(&mut rest).await {
            Ok((before, version)) => {
                let (to, called) = (before + 1, context.clock.now());
                let counted = write(&mut rest, to, &version).await;
                let returned = context.clock.now();
                increments.push(Increment { client: client.clone(), member, called, returned, to, counted });
                counted
            }
            Err(_) => Counted::Unknown,
        };
        if counted == Counted::Unknown || rng.random_bool(0.02) {
            rest.move_to((member + rng.random_range(1..members.max(2))) % members);
        }
    }
    increments
}

fn counter(value: u64, version: Option<&str>) -> Json {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "resourceVersion": version},
        "data": {"value": value.to_string()},
    })
}

/// Returns the counter and its resource version, and creates the counter if it is missing.
///
/// # Errors
/// The reason why the counter can neither be read nor created.
pub async fn read(rest: &mut Rest) -> Result<(u64, String), String> {
    let mut answer = rest.request(Method::GET, &format!("{COLLECTION}/{NAME}"), None, DEADLINE).await;
    if matches!(&answer, Ok((status, _)) if status.as_u16() == 404) {
        answer = rest.request(Method::POST, COLLECTION, Some(&counter(0, None)), DEADLINE).await;
    }
    let (status, body) = answer.map_err(|failure| format!("{failure:?}"))?;
    let value = body["data"]["value"].as_str().and_then(|value| value.parse().ok());
    let version = body["metadata"]["resourceVersion"].as_str();
    match (value, version) {
        (Some(value), Some(version)) if status.is_success() => Ok((value, version.to_owned())),
        _ => Err(format!("{status}: {body}")),
    }
}

async fn write(rest: &mut Rest, value: u64, version: &str) -> Counted {
    let path = format!("{COLLECTION}/{NAME}");
    match rest.request(Method::PUT, &path, Some(&counter(value, Some(version))), DEADLINE).await {
        Ok((status, _)) => match status.as_u16() {
            200 => Counted::Yes,
            400..500 => Counted::No,
            _ => Counted::Unknown,
        },
        Err(Failure::NotSent(_)) => Counted::No,
        Err(Failure::Lost(_)) => Counted::Unknown,
    }
}
