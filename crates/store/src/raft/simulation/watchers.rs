//! Watchers: each watches one member, and continues at its last revision when the member restarts.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::KeyRange;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::evidence::{Evidence, Seen, Watched};
use super::invariants::Invariant;
use super::random::Random;
use crate::WatchError;
use crate::membership::MemberId;
use crate::platform::tokio;
use crate::platform::tokio::time::sleep;
use crate::watch::WatchBatch;

/// A watcher. Its progress can be read while it runs.
pub struct Watcher {
    pub cluster: Arc<Cluster>,
    pub evidence: Arc<Evidence>,
    pub random: Random,
    /// Whether it pauses now and then.
    pub is_slow: bool,
    pub watched: Arc<Mutex<Watched>>,
}

impl Watcher {
    pub fn new(
        cluster: &Arc<Cluster>,
        evidence: &Arc<Evidence>,
        random: Random,
        member: MemberId,
        range: KeyRange,
        is_slow: bool,
    ) -> Self {
        let (after, upto) = (Revision::INITIAL, Revision::INITIAL);
        let watched = Watched { member, range, after, upto, events: Vec::new() };
        let watched = Arc::new(Mutex::new(watched));
        Watcher { cluster: cluster.clone(), evidence: evidence.clone(), random, is_slow, watched }
    }

    /// Watches until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let member = self.watched.lock().member;
        while !stop.is_cancelled() {
            if let Some(life) = self.cluster.life(member) {
                let (range, after) = {
                    let watched = self.watched.lock();
                    (watched.range.clone(), watched.upto)
                };
                match life.run(|store| async move { store.watch(range, after) }).await {
                    Some(Ok(mut watch)) => {
                        tokio::select! {
                            () = stop.cancelled() => break,
                            () = life.process.ended() => {}
                            () = self.follow(&mut watch) => {}
                        }
                    }
                    Some(Err(error)) => self.handle_error(&error),
                    None => {}
                }
            }
            sleep(self.random.millis(5..60)).await;
        }
        let watched = self.watched.lock().clone();
        self.evidence.watched.lock().push(watched);
    }

    async fn follow(&mut self, watch: &mut crate::Watch) {
        loop {
            match watch.next().await {
                Some(Ok(batch)) => self.handle_batch(&batch),
                Some(Err(error)) => return self.handle_error(&error),
                None => return,
            }
            if self.is_slow && self.random.percent(30) {
                sleep(self.random.millis(10..300)).await;
            }
        }
    }

    fn handle_batch(&self, batch: &WatchBatch) {
        let mut watched = self.watched.lock();
        let (member, before) = (watched.member, watched.upto);
        let mut last = before;
        for event in batch.events.iter() {
            let revision = event.kv().mod_revision;
            let is_split = revision == before;
            if is_split || revision < last || revision > batch.revision {
                let order = format!("{revision} after {last} in a batch up to {}", batch.revision);
                let problem = format!("a watcher of m{member} at {before} was given {order}");
                self.evidence.problem(Invariant::Watches, problem);
            }
            last = last.max(revision);
        }
        if batch.revision < before {
            let problem = format!("a watcher of m{member} went back from {before} to {}", batch.revision);
            self.evidence.problem(Invariant::Watches, problem);
        }
        watched.events.extend(batch.events.iter().map(Seen::new));
        watched.upto = before.max(batch.revision);
    }

    /// Handles the end of a watch. After a compaction, the watcher starts again at the compacted revision.
    fn handle_error(&self, error: &WatchError) {
        match error {
            WatchError::Compacted { compacted, .. } => {
                let mut watched = self.watched.lock();
                let rest = Watched {
                    after: Revision(compacted.0 - 1),
                    upto: Revision(compacted.0 - 1),
                    events: Vec::new(),
                    ..watched.clone()
                };
                let seen = std::mem::replace(&mut *watched, rest);
                if *compacted <= seen.upto.next() {
                    let problem = format!("a watcher of m{} at {} was told {error}", seen.member, seen.upto);
                    self.evidence.problem(Invariant::Watches, problem);
                }
                self.evidence.watched.lock().push(seen);
            }
            WatchError::ShuttingDown => {}
            WatchError::Fatal(_) => {
                let member = self.watched.lock().member;
                self.evidence.note(&("a watch of a member failed", member, error));
            }
        }
    }
}
