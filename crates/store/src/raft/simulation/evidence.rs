//! What a simulation shows: every call and answer, everything watched, who led, and what went wrong by itself.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Event, KeyRange, KeyValue, LeaseId, LeaseInfo, RangeResponse, Reply};

use super::cluster::Life;
use super::invariants::{Invariant, Violation};
use crate::StoreError;
use crate::membership::MemberId;
use crate::platform::tokio::time::{Instant, sleep};
use crate::raft::types::{LogId, Vote};

/// Between two looks at a member that opens its instance anew.
const REOPENING: Duration = Duration::from_millis(20);

/// A moment: none is the same as another.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub step: u64,
    pub at: Instant,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Action {
    Put {
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
    },
    /// Two keys at once.
    PutTwo {
        keys: [Bytes; 2],
        value: Bytes,
    },
    /// Puts if the key was last written at that revision.
    Swap {
        key: Bytes,
        expected: Revision,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// Linearizable.
    Read {
        key: Bytes,
    },
    Grant {
        id: LeaseId,
        ttl_seconds: u64,
    },
    KeepAlive {
        id: LeaseId,
    },
}

#[derive(Clone, Debug)]
pub enum Answer {
    Done(Reply),
    Read(RangeResponse),
    Failed(StoreError),
    /// The process that was asked has ended.
    Lost,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub member: MemberId,
    pub action: Action,
    pub began: Moment,
    pub ended: Option<(Moment, Answer)>,
}

/// What a watcher saw, over restarts of the member that it watches.
#[derive(Clone, Debug)]
pub struct Watched {
    pub member: MemberId,
    pub range: KeyRange,
    /// Everything after it.
    pub after: Revision,
    pub upto: Revision,
    pub events: Vec<Seen>,
}

/// An event, without what may have been compacted away.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kv: KeyValue,
    pub is_delete: bool,
    pub at: Instant,
}

impl Seen {
    pub fn new(event: &Event) -> Self {
        let is_delete = matches!(event, Event::Delete { .. });
        Seen { kv: event.kv().clone(), is_delete, at: Instant::now() }
    }

    pub fn is_same(&self, other: &Seen) -> bool {
        self.kv == other.kv && self.is_delete == other.is_delete
    }
}

/// What a member holds in the end.
#[derive(Clone, Debug)]
pub struct Final {
    pub member: MemberId,
    pub revision: Revision,
    pub hash: u64,
    pub keys: Vec<KeyValue>,
    pub leases: Vec<LeaseInfo>,
}

/// What was durable of a log when its process ended, at least.
#[derive(Clone, Debug)]
pub struct Restart {
    pub member: MemberId,
    pub vote_before: Option<Vote>,
    pub vote_after: Option<Vote>,
}

/// Everything that is known.
pub struct Evidence {
    began: Instant,
    pub panics: Arc<Mutex<Vec<String>>>,
    pub problems: Mutex<Vec<Violation>>,
    pub calls: Mutex<Vec<Call>>,
    pub watched: Mutex<Vec<Watched>>,
    /// Who led a term and when it was seen.
    pub leaders: Mutex<Vec<(u64, MemberId)>>,
    /// Which entries were applied by whom.
    pub applied: Mutex<Vec<(MemberId, LogId)>>,
    pub restarts: Mutex<Vec<Restart>>,
    pub finals: Mutex<Vec<Final>>,
    votes: Mutex<BTreeMap<MemberId, Option<Vote>>>,
    trace: Mutex<Trace>,
}

/// The course of a simulation, as a number.
#[derive(Default)]
struct Trace {
    steps: u64,
    hasher: DefaultHasher,
    is_shown: bool,
}

impl Evidence {
    pub fn new(is_shown: bool) -> Arc<Self> {
        Arc::new(Evidence {
            began: Instant::now(),
            panics: Arc::default(),
            problems: Mutex::default(),
            calls: Mutex::default(),
            watched: Mutex::default(),
            leaders: Mutex::default(),
            applied: Mutex::default(),
            restarts: Mutex::default(),
            finals: Mutex::default(),
            votes: Mutex::default(),
            trace: Mutex::new(Trace { is_shown, ..Trace::default() }),
        })
    }

    /// Notes that something happens.
    pub fn note(&self, what: &dyn std::fmt::Debug) -> Moment {
        let at = Instant::now();
        let mut trace = self.trace.lock();
        let text = format!("{:?} {what:?}", at - self.began);
        text.hash(&mut trace.hasher);
        trace.steps += 1;
        if trace.is_shown {
            tracing::info!(target: "simulation", "{text}");
        }
        Moment { step: trace.steps, at }
    }

    /// Equal numbers: the same things have happened at the same times.
    pub fn course(&self) -> u64 {
        self.trace.lock().hasher.finish()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes what is seen at once not to be as it must be.
    pub fn problem(&self, invariant: Invariant, what: String) {
        self.note(&what);
        self.problems.lock().push(Violation { invariant, what });
    }

    /// Notes a call; answers by number.
    pub fn call(&self, member: MemberId, action: &Action) -> usize {
        let began = self.note(&(member, action));
        let mut calls = self.calls.lock();
        calls.push(Call { member, action: action.clone(), began, ended: None });
        calls.len() - 1
    }

    pub fn answer(&self, call: usize, answer: Answer) {
        let ended = self.note(&(call, &answer));
        self.calls.lock()[call].ended = Some((ended, answer));
    }

    /// A member is up: from now on it is seen who leads there, and what is applied.
    pub fn begins(self: &Arc<Self>, id: MemberId, life: &Life) {
        self.note(&("begins", id));
        let Ok(instance) = life.node.instance() else { return };
        let vote_after = instance.log.vote();
        if let Some(vote_before) = self.votes.lock().remove(&id) {
            self.restarts.lock().push(Restart { member: id, vote_before, vote_after });
        }
        let (evidence, mut leadership, member) = (self.clone(), life.store.leadership(), life.node.id());
        life.process.spawn(async move {
            loop {
                let (is_leader, term) = {
                    let leadership = leadership.borrow_and_update();
                    (leadership.is_active_leader, leadership.term)
                };
                if is_leader {
                    evidence.note(&("leads", id, term));
                    evidence.leaders.lock().push((term, member));
                }
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        });
        let (evidence, node) = (self.clone(), life.node.clone());
        life.process.spawn(async move {
            loop {
                // A member that opens its instance anew has another position.
                let Ok(instance) = node.instance() else {
                    sleep(REOPENING).await;
                    continue;
                };
                let mut position = instance.state.position();
                let mut metrics = instance.raft.server_metrics();
                drop(instance);
                loop {
                    let applied = position.borrow_and_update().log_id;
                    evidence.applied.lock().extend(applied.map(|applied| (id, applied)));
                    if position.changed().await.is_err() {
                        break;
                    }
                }
                while metrics.changed().await.is_ok() {}
            }
        });
    }

    /// A member is not the one that was there before.
    pub fn forgets(&self, id: MemberId) {
        self.note(&("is lost", id));
        self.votes.lock().remove(&id);
    }

    /// A member is about to end.
    pub fn ends(&self, id: MemberId, life: &Life) {
        self.note(&("ends", id));
        if life.process.is_dead() {
            return;
        }
        if let Ok(instance) = life.node.instance() {
            self.votes.lock().insert(id, instance.log.vote());
        }
    }
}
