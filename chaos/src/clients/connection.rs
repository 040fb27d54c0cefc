//! Connection of a client to one member over the etcd API, and transactions over it.

use std::time::Duration;

use anyhow::Context as _;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, KeyValue, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::timeout;

use super::Context;
use crate::history::{Api, Operation, Outcome, Transaction, Value};
use crate::world::MemberIndex;

/// Time that a client waits for an answer.
pub const CALL_DEADLINE: Duration = Duration::from_secs(2);
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// gRPC status codes of refusals, after which nothing was proposed.
const REFUSALS: [i32; 6] = [
    3,  // INVALID_ARGUMENT
    5,  // NOT_FOUND
    7,  // PERMISSION_DENIED
    8,  // RESOURCE_EXHAUSTED
    9,  // FAILED_PRECONDITION
    11, // OUT_OF_RANGE
];
/// `Unavailable` messages that are refusals. The store returns the first only if nothing was proposed, and the client
/// library the second only if nothing was sent.
const NOT_PROPOSED: [&str; 2] = ["etcdserver: no leader", "tcp connect error"];

pub struct Connection {
    context: Context,
    name: String,
    member: MemberIndex,
    client: Option<Client>,
}

impl Connection {
    #[must_use]
    pub fn new(context: Context, name: &str, member: MemberIndex) -> Self {
        Connection { context, name: name.to_owned(), member, client: None }
    }

    #[must_use]
    pub fn member(&self) -> MemberIndex {
        self.member
    }

    /// Moves to another member, if there is one.
    pub fn leave(&mut self, rng: &mut StdRng) {
        let count = self.context.layout.places.len();
        self.client = None;
        self.member = (self.member + rng.random_range(1..count.max(2))) % count;
    }

    /// Drops the connection, so that the next call reconnects.
    pub fn disconnect(&mut self) {
        self.client = None;
    }

    /// Returns the client of this member.
    ///
    /// # Errors
    /// When the client cannot be created.
    pub async fn client(&mut self) -> anyhow::Result<&mut Client> {
        if self.client.is_none() {
            let url = format!("http://{}", self.context.layout.places[self.member].etcd);
            let options = ConnectOptions::new().with_connect_timeout(CONNECT_DEADLINE);
            self.client = Some(Client::connect([url], Some(options)).await?);
        }
        self.client.as_mut().context("no client")
    }

    /// Sends a transaction and records its outcome. The keys must belong to `object`.
    pub async fn call(&mut self, api: Api, object: &str, request: Transaction) -> Operation {
        let called = self.context.clock.now();
        let outcome = self.send(api, &request).await;
        let returned = self.context.clock.now();
        if !matches!(outcome, Outcome::Done { .. }) {
            self.client = None;
        }
        let (client, object, member) = (self.name.clone(), object.to_owned(), self.member);
        Operation { client, api, object, member, called, returned, request, outcome }
    }

    async fn send(&mut self, api: Api, request: &Transaction) -> Outcome {
        let exchange = async {
            let client = self.client().await.map_err(|error| Outcome::Refused { reason: error.to_string() })?;
            exchange(client, api, request).await.map_err(|error| outcome(&error))
        };
        match timeout(CALL_DEADLINE, exchange).await {
            Ok(Ok(done) | Err(done)) => done,
            Err(_) => Outcome::Unknown { reason: "no answer in time".to_owned() },
        }
    }
}

/// Outcome of a write that returned this error.
pub fn outcome(error: &Error) -> Outcome {
    let reason = error.to_string();
    match error {
        Error::GRpcStatus(status) if REFUSALS.contains(&i32::from(status.code())) => Outcome::Refused { reason },
        Error::GRpcStatus(status) if NOT_PROPOSED.contains(&status.message()) => Outcome::Refused { reason },
        _ => Outcome::Unknown { reason },
    }
}

/// Sends the transaction as the simplest call that can express it.
async fn exchange(client: &mut Client, api: Api, request: &Transaction) -> Result<Outcome, Error> {
    match request {
        Transaction { expect, writes, reads } if expect.is_empty() && writes.is_empty() => match &reads[..] {
            [key] => get(client, api, key).await,
            keys => get_all(client, api, keys).await,
        },
        Transaction { expect, writes, reads } if expect.is_empty() && reads.len() <= 1 && writes.len() == 1 => {
            let wants_previous = !reads.is_empty();
            match &writes[0] {
                (key, Some(value)) => put(client, key, value, wants_previous).await,
                (key, None) => delete(client, key).await,
            }
        }
        _ => transaction(client, request).await,
    }
}

fn value_of(kv: &KeyValue) -> Value {
    Some(String::from_utf8_lossy(kv.value()).into_owned())
}

fn done(revision: Option<i64>, succeeded: bool, observed: Vec<(String, Value)>) -> Outcome {
    let revision = revision.and_then(|revision| u64::try_from(revision).ok()).unwrap_or(0);
    Outcome::Done { succeeded, observed, revision }
}

fn consistency(api: Api) -> GetOptions {
    if api == Api::EtcdStale { GetOptions::new().with_serializable() } else { GetOptions::new() }
}

async fn get(client: &mut Client, api: Api, key: &str) -> Result<Outcome, Error> {
    let found = client.get(key, Some(consistency(api))).await?;
    let value = found.kvs().first().and_then(value_of);
    Ok(done(found.header().map(|header| header.revision()), true, vec![(key.to_owned(), value)]))
}

/// Reads all keys at one revision; they are adjacent in the keyspace.
async fn get_all(client: &mut Client, api: Api, keys: &[String]) -> Result<Outcome, Error> {
    let (Some(first), Some(last)) = (keys.iter().min(), keys.iter().max()) else { return Ok(done(None, true, vec![])) };
    let options = consistency(api).with_range(format!("{last}\0"));
    let found = client.get(first.as_str(), Some(options)).await?;
    let value = |key: &String| found.kvs().iter().find(|kv| kv.key() == key.as_bytes()).and_then(value_of);
    let observed = keys.iter().map(|key| (key.clone(), value(key))).collect();
    Ok(done(found.header().map(|header| header.revision()), true, observed))
}

async fn put(client: &mut Client, key: &str, value: &str, wants_previous: bool) -> Result<Outcome, Error> {
    let options = wants_previous.then(|| PutOptions::new().with_prev_key());
    let answer = client.put(key, value, options).await?;
    let previous = answer.prev_key().and_then(value_of);
    let observed = if wants_previous { vec![(key.to_owned(), previous)] } else { Vec::new() };
    Ok(done(answer.header().map(|header| header.revision()), true, observed))
}

async fn delete(client: &mut Client, key: &str) -> Result<Outcome, Error> {
    let answer = client.delete(key, Some(DeleteOptions::new().with_prev_key())).await?;
    let previous = answer.prev_kvs().first().and_then(value_of);
    Ok(done(answer.header().map(|header| header.revision()), true, vec![(key.to_owned(), previous)]))
}

async fn transaction(client: &mut Client, request: &Transaction) -> Result<Outcome, Error> {
    let compare = |(key, value): &(String, Value)| match value {
        Some(value) => Compare::value(key.as_str(), CompareOp::Equal, value.as_str()),
        None => Compare::version(key.as_str(), CompareOp::Equal, 0),
    };
    let write = |(key, value): &(String, Value)| match value {
        Some(value) => TxnOp::put(key.as_str(), value.as_str(), None),
        None => TxnOp::delete(key.as_str(), None),
    };
    let reads: Vec<TxnOp> = request.reads.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
    let success: Vec<TxnOp> = reads.iter().cloned().chain(request.writes.iter().map(write)).collect();
    let compares: Vec<Compare> = request.expect.iter().map(compare).collect();
    let answer = client.txn(Txn::new().when(compares).and_then(success).or_else(reads)).await?;
    let found = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(found) => Some(found.kvs().first().and_then(value_of)),
        _ => None,
    });
    let observed = request.reads.iter().cloned().zip(found).collect();
    Ok(done(answer.header().map(|header| header.revision()), answer.succeeded(), observed))
}

/// A client that stays at its member until a call fails or it has been there for long.
pub struct Roaming {
    pub connection: Connection,
    left: u32,
}

impl Roaming {
    #[must_use]
    pub fn new(context: &Context, name: &str, rng: &mut StdRng) -> Self {
        let member = rng.random_range(0..context.layout.places.len());
        Roaming { connection: Connection::new(context.clone(), name, member), left: 0 }
    }

    /// Sends a transaction to the current member.
    pub async fn call(&mut self, api: Api, object: &str, request: Transaction, rng: &mut StdRng) -> Operation {
        let operation = self.connection.call(api, object, request).await;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || !matches!(operation.outcome, Outcome::Done { .. }) {
            self.connection.leave(rng);
            self.left = rng.random_range(10..80);
        }
        operation
    }
}
