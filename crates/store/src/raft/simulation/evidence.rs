//! Evidence of a simulation: all calls and responses, watched events, leaders, applied entries, and problems.

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

/// Interval of the checks whether a member has reopened its instance.
const REOPENING: Duration = Duration::from_millis(20);

/// A unique moment of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub step: u64,
    pub at: Instant,
}

/// A client's request.
#[derive(Clone, Debug)]
pub enum Action {
    Put {
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
    },
    /// Puts two keys in one transaction.
    PutTwo {
        keys: [Bytes; 2],
        value: Bytes,
    },
    /// Puts a key if its last write was at the `expected` revision.
    Swap {
        key: Bytes,
        expected: Revision,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// Reads a key linearizably.
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
    /// The process did not run, has ended, or did not respond in time.
    Lost,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub member: MemberId,
    pub action: Action,
    pub began: Moment,
    pub ended: Option<(Moment, Answer)>,
}

/// Events that a watcher received, across restarts of its member.
#[derive(Clone, Debug)]
pub struct Watched {
    pub member: MemberId,
    pub range: KeyRange,
    /// The events are those after this revision.
    pub after: Revision,
    /// The events are complete up to this revision.
    pub upto: Revision,
    pub events: Vec<Seen>,
}

/// An event without its previous version, which may be compacted.
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

/// State of a member at the end.
#[derive(Clone, Debug)]
pub struct Final {
    pub member: MemberId,
    pub revision: Revision,
    pub hash: u64,
    pub keys: Vec<KeyValue>,
    pub leases: Vec<LeaseInfo>,
}

/// The vote in a member's log when its process ended, and after the next start.
#[derive(Clone, Debug)]
pub struct Restart {
    pub member: MemberId,
    pub vote_before: Option<Vote>,
    pub vote_after: Option<Vote>,
}

/// All evidence of a simulation.
pub struct Evidence {
    began: Instant,
    pub panics: Arc<Mutex<Vec<String>>>,
    pub problems: Mutex<Vec<Violation>>,
    pub calls: Mutex<Vec<Call>>,
    pub watched: Mutex<Vec<Watched>>,
    /// Terms and their leaders, in the order in which they were seen.
    pub leaders: Mutex<Vec<(u64, MemberId)>>,
    /// Members and their last applied entries.
    pub applied: Mutex<Vec<(MemberId, LogId)>>,
    pub restarts: Mutex<Vec<Restart>>,
    pub finals: Mutex<Vec<Final>>,
    votes: Mutex<BTreeMap<MemberId, Option<Vote>>>,
    trace: Mutex<Trace>,
}

/// Running hash of the events of a simulation.
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

    /// Records an event in the trace.
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

    /// Hash of the trace. Equal hashes mean equal events at equal times.
    pub fn course(&self) -> u64 {
        self.trace.lock().hasher.finish()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Records a violation that is found during the simulation.
    pub fn problem(&self, invariant: Invariant, what: String) {
        self.note(&what);
        self.problems.lock().push(Violation { invariant, what });
    }

    /// Records a call and returns its number.
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

    /// Records the start of a member, and from then on its leadership and applied entries.
    pub fn record_start(self: &Arc<Self>, id: MemberId, life: &Life) {
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
                // A member that reopens its instance gets a new `position` channel.
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

    /// Records that a member has lost its disk.
    pub fn record_lost_disk(&self, id: MemberId) {
        self.note(&("is lost", id));
        self.votes.lock().remove(&id);
    }

    /// Records that a member is about to end.
    pub fn record_end(&self, id: MemberId, life: &Life) {
        self.note(&("ends", id));
        if life.process.is_dead() {
            return;
        }
        if let Ok(instance) = life.node.instance() {
            self.votes.lock().insert(id, instance.log.vote());
        }
    }
}
