//! Clients, which write, swap, delete, read and hold leases on any member, and record the responses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Command, Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, Outcome, PutRequest,
    RangeRequest, Reply, Txn,
};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::evidence::{Action, Answer, Evidence};
use super::random::Random;
use crate::membership::MemberId;
use crate::platform::tokio::time::{sleep, timeout};
use crate::{Consistency, Store};

/// Number of keys that clients contend for.
const KEYS: u64 = 4;
/// Prefix of the keys with leases, which expire.
pub const LEASED: &str = "leased/";
/// Time limit for finding out an unknown outcome.
const OUTCOME_WITHIN: Duration = Duration::from_secs(4);
/// Time after which a client stops waiting for a response.
const PATIENCE: Duration = Duration::from_secs(6);

/// A client.
pub struct Client {
    pub cluster: Arc<Cluster>,
    pub evidence: Arc<Evidence>,
    pub random: Random,
    /// Distinguishes its values and leases from those of other clients.
    pub number: u64,
    written: u64,
    /// Revisions of the last known writes of keys.
    known: BTreeMap<Bytes, Revision>,
    leases: Vec<LeaseId>,
}

impl Client {
    pub fn new(cluster: Arc<Cluster>, evidence: Arc<Evidence>, random: Random, number: u64) -> Self {
        Client { cluster, evidence, random, number, written: 0, known: BTreeMap::new(), leases: Vec::new() }
    }

    /// Makes one call after the other until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let action = self.next();
            let ids: Vec<_> = self.cluster.ids().collect();
            let member = ids[self.random.index(ids.len())];
            self.call(member, action).await;
            let pause = if self.random.percent(50) { self.random.micros(0..3000) } else { self.random.millis(3..150) };
            sleep(pause).await;
        }
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.random.within(0..KEYS)).into()
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        format!("{}.{}", self.number, self.written).into()
    }

    fn next(&mut self) -> Action {
        match self.random.within(0..100) {
            0..30 => Action::Put { key: self.key(), value: self.value(), lease: LeaseId::NONE },
            30..36 => {
                let first = self.random.within(0..KEYS);
                let keys = [first, (first + 1) % KEYS].map(|key| format!("k{key}").into());
                Action::PutTwo { keys, value: self.value() }
            }
            36..46 => {
                let key = self.key();
                let expected = self.known.get(&key).copied().unwrap_or(Revision::ZERO);
                Action::Swap { key, expected, value: self.value() }
            }
            46..50 => Action::Delete { key: self.key() },
            50..55 => {
                let id = LeaseId(i64::try_from(self.number * 1000 + self.leases.len() as u64 + 1).expect("few"));
                self.leases.push(id);
                Action::Grant { id, ttl_seconds: self.random.within(1..4) }
            }
            55..60 if !self.leases.is_empty() => {
                let lease = self.leases[self.random.index(self.leases.len())];
                Action::Put { key: format!("{LEASED}{}", lease.0).into(), value: self.value(), lease }
            }
            60..68 if !self.leases.is_empty() => {
                let recent = self.leases.len() - 1 - self.random.index(self.leases.len().min(2));
                Action::KeepAlive { id: self.leases[recent] }
            }
            _ => Action::Read { key: self.key() },
        }
    }

    /// Makes a call and records its result.
    pub async fn call(&mut self, member: MemberId, action: Action) -> Answer {
        let call = self.evidence.call(member, &action);
        let answer = match self.cluster.life(member) {
            None => Answer::Lost,
            Some(life) => {
                let asked = action.clone();
                let answer = life.run(|store| async move { ask(&store, &asked).await });
                // After a timeout the call may still take effect.
                timeout(PATIENCE, answer).await.ok().flatten().unwrap_or(Answer::Lost)
            }
        };
        self.learn(&action, &answer);
        self.evidence.answer(call, answer.clone());
        answer
    }

    fn learn(&mut self, action: &Action, answer: &Answer) {
        match (action, answer) {
            (Action::Put { key, .. }, Answer::Done(reply)) if reply.outcome.is_ok() => {
                self.known.insert(key.clone(), reply.revision);
            }
            (Action::Swap { key, .. }, Answer::Done(reply)) => match &reply.outcome {
                Ok(Outcome::Txn(response)) if response.succeeded => {
                    self.known.insert(key.clone(), reply.revision);
                }
                _ => {}
            },
            (Action::Read { key }, Answer::Read(response)) => {
                let revision = response.kvs.first().map_or(Revision::ZERO, |kv| kv.mod_revision);
                self.known.insert(key.clone(), revision);
            }
            _ => {}
        }
    }
}

async fn ask(store: &Store, action: &Action) -> Answer {
    if let Action::Read { key } = action {
        let request = RangeRequest::new(KeyRange::key(key.clone()));
        return match store.range(&request, Consistency::Linearizable).await {
            Ok(response) => Answer::Read(response),
            Err(error) => Answer::Failed(error),
        };
    }
    let done = match command(action) {
        // `txn_once` finds out the outcome even if the response is lost.
        Command::Txn(txn) if matches!(action, Action::Swap { .. }) => {
            let done = store.txn_once(txn, OUTCOME_WITHIN).await;
            done.map(|(revision, response)| Reply { revision, outcome: Ok(Outcome::Txn(response)) })
        }
        command => store.propose(command).await,
    };
    match done {
        Ok(reply) => Answer::Done(reply),
        Err(error) => Answer::Failed(error),
    }
}

fn put(key: &Bytes, value: &Bytes, lease: LeaseId) -> Op {
    Op::Put(PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() })
}

fn command(action: &Action) -> Command {
    let all = |success| Command::Txn(Txn { success, ..Txn::default() });
    match action {
        Action::Put { key, value, lease } => all(vec![put(key, value, *lease)]),
        Action::PutTwo { keys, value } => all(keys.iter().map(|key| put(key, value, LeaseId::NONE)).collect()),
        Action::Swap { key, expected, value } => Command::Txn(Txn {
            compare: vec![Compare {
                range: KeyRange::key(key.clone()),
                target: CompareTarget::ModRevision(*expected),
                operator: CompareOperator::Equal,
            }],
            success: vec![put(key, value, LeaseId::NONE)],
            failure: Vec::new(),
        }),
        Action::Delete { key } => {
            all(vec![Op::Delete(DeleteRequest { range: KeyRange::key(key.clone()), prev_kv: false })])
        }
        Action::Read { key } => all(vec![Op::Range(RangeRequest::new(KeyRange::key(key.clone())))]),
        Action::Grant { id, ttl_seconds } => Command::LeaseGrant { id: *id, ttl_seconds: *ttl_seconds },
        Action::KeepAlive { id } => Command::LeaseKeepAlive { id: *id },
    }
}
