//! Watchers of everything that the clients write. A stream ends when its member stops, or when the watcher moves at
//! random. The watcher then resumes at another member after the last revision that it has seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{CALL_DEADLINE, Connection, Context, PREFIX};
use crate::history::{Seen, WatchLog, WatchRecord};
use crate::world::MemberIndex;

const RETRY: Duration = Duration::from_millis(100);

/// Progress of all watchers, which the compactor reads.
#[derive(Debug, Default)]
pub struct Progress(Vec<Arc<AtomicU64>>);

impl Progress {
    /// Adds another watcher.
    pub fn join(&mut self) -> Arc<AtomicU64> {
        self.0.push(Arc::default());
        self.0[self.0.len() - 1].clone()
    }

    /// Revision that all watchers have seen.
    #[must_use]
    pub fn slowest(&self) -> u64 {
        self.0.iter().map(|seen| seen.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

/// Behaviour of a watcher.
#[derive(Clone, Debug)]
pub struct Style {
    pub name: String,
    pub seed: u64,
    pub with_previous: bool,
    /// Member that the watcher stays at; `None` lets it move at random.
    pub member: Option<MemberIndex>,
}

/// Watches from `first` on until the watcher has seen everything up to `last`, which is published once it is known, or
/// until the clients are stopped.
pub async fn run(
    context: Context,
    style: Style,
    first: u64,
    seen: Arc<AtomicU64>,
    mut last: tokio::sync::watch::Receiver<Option<u64>>,
) -> WatchLog {
    let mut rng = StdRng::seed_from_u64(style.seed);
    let member = style.member.unwrap_or_else(|| rng.random_range(0..context.layout.places.len()));
    let mut watcher = Watcher {
        connection: Connection::new(context.clone(), &style.name, member),
        log: WatchLog { watcher: style.name, with_previous: style.with_previous, ..WatchLog::default() },
        next: first,
        context: context.clone(),
        seen,
        is_roaming: style.member.is_none(),
    };
    loop {
        let ended = tokio::select! {
            ended = watcher.stream(&mut rng, &mut last) => ended,
            () = context.stop.cancelled() => break,
        };
        let at = context.clock.now();
        match ended {
            Ok(End::Complete) => break,
            Ok(End::Left(reason)) => watcher.log.records.push(WatchRecord::Ended { at, reason }),
            Err(error) => watcher.log.records.push(WatchRecord::Ended { at, reason: error.to_string() }),
        }
        if watcher.is_roaming {
            watcher.connection.leave(&mut rng);
        } else {
            watcher.connection.disconnect();
        }
        sleep(RETRY).await;
    }
    watcher.log.complete_to = watcher.next - 1;
    watcher.log
}

struct Watcher {
    context: Context,
    connection: Connection,
    log: WatchLog,
    /// First revision that the watcher has not seen completely.
    next: u64,
    seen: Arc<AtomicU64>,
    is_roaming: bool,
}

/// Reason why a stream ended.
enum End {
    /// The watcher has seen everything.
    Complete,
    Left(String),
}

impl Watcher {
    async fn stream(
        &mut self,
        rng: &mut StdRng,
        last: &mut tokio::sync::watch::Receiver<Option<u64>>,
    ) -> anyhow::Result<End> {
        let mut options = WatchOptions::new().with_prefix().with_start_revision(i64::try_from(self.next)?);
        if self.log.with_previous {
            options = options.with_prev_key();
        }
        let opening = async {
            let client = self.connection.client().await?;
            anyhow::Ok(client.watch(PREFIX, Some(options)).await?)
        };
        let mut stream = timeout(CALL_DEADLINE, opening).await??;
        let (at, member, from) = (self.context.clock.now(), self.connection.member(), self.next);
        self.log.records.push(WatchRecord::Opened { at, member, from });
        let leave = Instant::now() + Duration::from_millis(rng.random_range(500..12_000));
        // The watcher requests progress from time to time, and repeatedly at the end until it has caught up.
        let mut ask = Instant::now() + Duration::from_millis(rng.random_range(200..3000));
        loop {
            let wanted = *last.borrow();
            if wanted.is_some_and(|last| self.next > last) {
                return Ok(End::Complete);
            }
            tokio::select! {
                message = stream.message() => match message? {
                    Some(message) => {
                        if let Some(end) = self.message(&message)? {
                            return Ok(end);
                        }
                    }
                    None => return Ok(End::Left("the stream ended".to_owned())),
                },
                () = sleep_until(ask) => {
                    stream.request_progress().await?;
                    ask = Instant::now() + Duration::from_millis(if wanted.is_some() { 200 } else { 3000 });
                }
                _ = last.changed() => ask = Instant::now(),
                () = sleep_until(leave), if self.is_roaming && wanted.is_none() => {
                    return Ok(End::Left("moves to another member".to_owned()));
                }
            }
        }
    }

    fn message(&mut self, message: &WatchResponse) -> anyhow::Result<Option<End>> {
        let at = self.context.clock.now();
        if message.compact_revision() > 0 {
            let compacted = u64::try_from(message.compact_revision())?;
            self.log.records.push(WatchRecord::Compacted { at, compacted });
            self.advance(compacted + 1);
            return Ok(Some(End::Left("compacted".to_owned())));
        }
        if message.canceled() {
            return Ok(Some(End::Left(format!("cancelled: {}", message.cancel_reason()))));
        }
        if message.created() {
            return Ok(None);
        }
        let revision = message.header().and_then(|header| u64::try_from(header.revision()).ok()).unwrap_or(0);
        if message.events().is_empty() {
            self.log.records.push(WatchRecord::Progress { at, revision });
            self.advance(revision + 1);
            return Ok(None);
        }
        let events: Vec<Seen> = message.events().iter().map(seen).collect();
        let newest = events.iter().map(|event| event.revision).max().unwrap_or(0);
        self.log.records.push(WatchRecord::Batch { at, events });
        self.advance(newest + 1);
        Ok(None)
    }

    fn advance(&mut self, next: u64) {
        self.next = self.next.max(next);
        self.seen.store(self.next - 1, Ordering::Relaxed);
    }
}

fn seen(event: &Event) -> Seen {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(kv) = event.kv() else {
        let key = "(an event without a key)".to_owned();
        return Seen { key, value: None, revision: 0, create_revision: 0, version: 0, previous: None };
    };
    let is_put = event.event_type() == EventType::Put;
    Seen {
        key: text(kv.key()),
        value: is_put.then(|| text(kv.value())),
        revision: number(kv.mod_revision()),
        create_revision: if is_put { number(kv.create_revision()) } else { 0 },
        version: if is_put { number(kv.version()) } else { 0 },
        previous: event.prev_kv().map(|kv| (text(kv.value()), number(kv.mod_revision()))),
    }
}
