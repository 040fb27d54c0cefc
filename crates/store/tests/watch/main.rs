//! Watches on the store in memory deliver every event once and in order, regardless of where a watcher starts and how
//! slow it is.

mod indexed;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::RwLock;
use quorate_api::Revision;
use quorate_mvcc::{
    BackendError, Command, DeleteRequest, Event, EventPage, KeyRange, LeaseId, MemoryBackend, Op, Outcome, PutRequest,
    RangeRequest, ReadError, State, Txn,
};
use quorate_store::hub::{Hub, HubConfig, WatchSource};
use quorate_store::{Consistency, Store, StoreError, Watch, WatchBudget, WatchError, WatchOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

fn put(key: impl AsRef<str>, value: impl AsRef<str>) -> Op {
    Op::Put(PutRequest {
        key: key.as_ref().to_owned().into(),
        value: value.as_ref().to_owned().into(),
        ..PutRequest::default()
    })
}

fn delete(range: KeyRange) -> Op {
    Op::Delete(DeleteRequest { range, prev_kv: false })
}

async fn write(store: &Store, ops: Vec<Op>) -> Revision {
    store.txn(Txn { success: ops, ..Txn::default() }).await.expect("a write succeeds").0
}

/// Small limits, so that every delivery path is used.
fn tight() -> HubConfig {
    HubConfig {
        ring_bytes: 20_000,
        channel_batches: 2,
        channel_bytes: 4000,
        page_bytes: 2000,
        catch_up_bytes: 20_000,
        progress_interval: Duration::from_millis(50),
    }
}

/// Reads until `until` is reached. Checks that batches are whole and in order, and that no event precedes a mark.
async fn collect(watch: &mut Watch, after: Revision, until: Revision, pace: Option<StdRng>) -> Vec<Event> {
    let mut pace = pace;
    let (mut events, mut reached) = (Vec::new(), after);
    while reached < until {
        let next = tokio::time::timeout(DEADLINE, watch.next()).await.expect("a watch goes on");
        let batch = next.expect("a watch does not end").expect("a watch does not fail");
        assert!(batch.revision >= reached, "{} after {reached}", batch.revision);
        for event in batch.events.iter() {
            let revision = event.kv().mod_revision;
            assert!(revision > reached, "event of {revision} after a mark of {reached}");
            assert!(revision <= batch.revision, "event of {revision} in a batch up to {}", batch.revision);
        }
        events.extend(batch.events.iter().cloned());
        reached = batch.revision;
        if let Some(rng) = &mut pace
            && rng.random_bool(0.3)
        {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..4))).await;
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_comes_once_and_in_order() {
    let store = Store::memory_with(tight());
    let ranges = [
        KeyRange::prefix("/a/"),
        KeyRange::prefix("/b/"),
        KeyRange::key("/a/3"),
        KeyRange::key("/b/never"),
        KeyRange::from(""),
        KeyRange { start: "/a/2".into(), end: Some("/b/4".into()) },
    ];
    let until = Revision(3000);
    let mut watchers = JoinSet::new();
    let mut rng = StdRng::seed_from_u64(7);
    let mut revision = store.revision();
    let mut wanted: Vec<Event> = Vec::new();
    let mut all = store.watch(KeyRange::from(""), revision).expect("a watch starts");
    let first = revision;
    let everything = tokio::spawn(async move { collect(&mut all, first, until, None).await });
    while revision < until {
        if rng.random_bool(0.06) {
            let range = ranges[rng.random_range(0..ranges.len())].clone();
            // Watchers start in the past, now, and in the future.
            let after = match rng.random_range(0..3) {
                0 => Revision(rng.random_range(1..=revision.0)),
                1 => revision,
                _ => Revision(revision.0 + rng.random_range(0..20)),
            };
            let mut watch = store.watch(range.clone(), after).expect("a watch starts");
            let pace = rng.random_bool(0.5).then(|| StdRng::seed_from_u64(rng.random()));
            watchers.spawn(async move { (range, after, collect(&mut watch, after, until, pace).await) });
        }
        let mut key = |prefix: &str| format!("/{prefix}/{}", rng.random_range(0..6));
        let mut ops = vec![put(key("a"), "one"), put(key("b"), "two")];
        if rng.random_bool(0.1) {
            ops = vec![delete(KeyRange::prefix("/a/")), delete(KeyRange::key("/b/1"))];
        }
        revision = write(&store, ops).await;
    }
    wanted.extend(everything.await.expect("the watcher of everything ends"));
    assert_eq!(wanted.last().expect("there are events").kv().mod_revision, until);
    assert!(watchers.len() > 50, "only {} watchers", watchers.len());
    while let Some(done) = watchers.join_next().await {
        let (range, after, events) = done.expect("a watcher ends well");
        let is_mine = |event: &&Event| event.kv().mod_revision > after && range.contains(&event.kv().key);
        let expected: Vec<_> = wanted.iter().filter(is_mine).cloned().collect();
        assert_eq!(events, expected, "{range:?} after {after}");
    }
    store.shutdown().await.expect("it shuts down");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_delays_nobody() {
    let store = Store::memory_with(tight());
    let mut sleeper = store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts");
    let mut awake = store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts");
    let mut expected = Vec::new();
    for i in 0..500 {
        let revision = write(&store, vec![put("/a/x", format!("{i}"))]).await;
        let events = collect(&mut awake, Revision(revision.0 - 1), revision, None).await;
        assert_eq!(events.len(), 1, "at {revision}");
        expected.extend(events);
    }
    let events = collect(&mut sleeper, Revision(1), store.revision(), None).await;
    assert_eq!(events, expected);
}

#[tokio::test]
async fn previous_versions_are_read_for_watchers_that_want_them() {
    let store = Store::memory_with(tight());
    let previous = || WatchOptions { with_previous: true, ..WatchOptions::default() };
    let mut live = store.watch_with(KeyRange::prefix("/a/"), Revision::ZERO, previous()).expect("a watch starts");
    let mut single = store.watch_with(KeyRange::key("/a/x"), Revision::ZERO, previous()).expect("a watch starts");
    let mut plain = store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts");
    let mut revisions = Vec::new();
    for i in 0..40 {
        revisions.push(write(&store, vec![put("/a/x", format!("{i}{}", "v".repeat(700)))]).await);
    }
    let last = write(&store, vec![delete(KeyRange::key("/a/x"))]).await;
    // One watcher starts in the tables, the other in the ring.
    let late = |after| store.watch_with(KeyRange::prefix("/"), after, previous()).expect("a watch starts");
    let mut early = late(Revision::INITIAL);
    let mut recent = late(revisions[38]);
    let before = |events: &[Event]| -> Vec<_> {
        events.iter().map(|event| event.prev().map(|prev| (prev.mod_revision, prev.value.len() > 700))).collect()
    };
    let first = std::iter::once(None);
    let expected: Vec<_> = first.chain(revisions.iter().map(|revision| Some((*revision, true)))).collect();
    for watch in [&mut live, &mut single, &mut early] {
        assert_eq!(before(&collect(watch, Revision::INITIAL, last, None).await), expected);
    }
    assert_eq!(before(&collect(&mut recent, revisions[38], last, None).await), expected[39..]);
    let events = collect(&mut plain, Revision::INITIAL, last, None).await;
    assert!(events.iter().all(|event| event.prev().is_none()));
    let written: Vec<_> = events.iter().map(|event| event.previous().revision()).collect();
    assert_eq!(written, [vec![Revision::ZERO], revisions].concat());
}

#[tokio::test]
async fn a_derived_value_is_shared_by_all_watches() {
    let store = Store::memory();
    let mut watches = [(); 3].map(|()| store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts"));
    write(&store, vec![put("/a/x", "1"), put("/a/y", "2")]).await;
    let made = AtomicUsize::new(0);
    let count = |events: &[Event]| {
        made.fetch_add(1, Ordering::Relaxed);
        Arc::new(events.len())
    };
    let mut counts = Vec::new();
    for watch in &mut watches {
        let batch = watch.next().await.expect("a batch").expect("a watch does not fail");
        counts.push(*batch.events.derived(count));
        assert_eq!(batch.events.derived(|events| events[0].kv().key.clone()), "/a/x", "a value of another type");
    }
    assert_eq!((counts, made.into_inner()), (vec![2; 3], 1));
}

#[tokio::test]
async fn the_events_held_for_a_watcher_that_does_not_read_are_bounded() {
    const VALUE_BYTES: usize = 10_000;
    let (channel_bytes, page_bytes) = (50_000, 30_000);
    let config = HubConfig { channel_batches: 1000, channel_bytes, page_bytes, ..tight() };
    let store = Store::memory_with(config);
    let mut live = store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts");
    let mut late = store.watch(KeyRange::prefix("/a/"), Revision::INITIAL).expect("a watch starts");
    let mut awake = store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts");
    let first = store.revision();
    for _ in 0..100 {
        let revision = write(&store, vec![put("/a/x", "v".repeat(VALUE_BYTES))]).await;
        collect(&mut awake, Revision(revision.0 - 1), revision, None).await;
    }
    for watch in [&mut live, &mut late] {
        // The batches that are ready without running another task are those in the channel.
        let (mut held, mut reached) = (0, first);
        while let Some(batch) = watch.next().now_or_never() {
            let batch = batch.expect("a watch does not end").expect("a watch does not fail");
            held += batch.events.iter().map(Event::size_bytes).sum::<usize>();
            reached = batch.revision;
        }
        assert!(held <= channel_bytes + page_bytes + 3 * VALUE_BYTES, "{held} bytes wait for a watcher");
        let rest = collect(watch, reached, store.revision(), None).await;
        assert_eq!(rest.len() as u64, store.revision().0 - reached.0, "no event is missed");
    }
}

#[tokio::test]
async fn watches_of_a_client_that_does_not_read_share_its_budget() {
    const VALUE_BYTES: usize = 10_000;
    let (channel_bytes, page_bytes, room_bytes) = (50_000, 30_000, 60_000);
    let store = Store::memory_with(HubConfig { channel_batches: 1000, channel_bytes, page_bytes, ..tight() });
    let options = WatchOptions { budget: Some(WatchBudget::new(2, room_bytes)), ..WatchOptions::default() };
    let first = store.revision();
    let watch = |i| store.watch_with(KeyRange::key(format!("/a/{i}")), first, options.clone()).expect("a watch starts");
    let mut watches: Vec<_> = (0..20).map(watch).collect();
    let mut awake = store.watch(KeyRange::prefix("/a/"), first).expect("a watch starts");
    for _ in 0..5 {
        for i in 0..20 {
            let revision = write(&store, vec![put(format!("/a/{i}"), "v".repeat(VALUE_BYTES))]).await;
            collect(&mut awake, Revision(revision.0 - 1), revision, None).await;
        }
    }
    let (mut held, mut reached) = (0, Vec::new());
    for watch in &mut watches {
        let mut upto = (first, 0);
        while let Some(batch) = watch.next().now_or_never() {
            let batch = batch.expect("a watch does not end").expect("a watch does not fail");
            held += batch.events.iter().map(Event::size_bytes).sum::<usize>();
            upto = (batch.revision, upto.1 + batch.events.len());
        }
        reached.push(upto);
    }
    assert!(held >= room_bytes / 2, "{held} bytes wait");
    assert!(held <= room_bytes + 2 * (page_bytes + VALUE_BYTES) + VALUE_BYTES, "{held} bytes wait for one client");
    let until = store.revision();
    let rest = watches.iter_mut().zip(&reached).map(|(watch, (upto, _))| collect(watch, *upto, until, None));
    for (rest, (_, before)) in futures::future::join_all(rest).await.iter().zip(&reached) {
        assert_eq!(before + rest.len(), 5, "no watch misses an event");
    }
}

#[tokio::test]
async fn ten_thousand_watches_delay_nobody() {
    let store = Store::memory();
    let range = |i: usize| if i.is_multiple_of(2) { KeyRange::prefix("/a/") } else { KeyRange::key(format!("/a/{i}")) };
    let mut watches: Vec<_> =
        (0..10_000).map(|i| store.watch(range(i), Revision::ZERO).expect("a watch starts")).collect();
    for i in 0..200 {
        write(&store, vec![put(format!("/a/{i}"), "x")]).await;
    }
    let all = collect(&mut watches[0], Revision::INITIAL, store.revision(), None).await;
    assert_eq!(all.len(), 200);
    let one = collect(&mut watches[7], Revision::INITIAL, Revision(Revision::INITIAL.0 + 8), None).await;
    assert_eq!(one.len(), 1);
    // Watches that have not read so far still get everything.
    for i in [1000, 9998] {
        assert_eq!(collect(&mut watches[i], Revision::INITIAL, store.revision(), None).await, all);
    }
}

#[tokio::test]
async fn a_watcher_behind_a_compaction_gets_an_error() {
    let store = Store::memory_with(tight());
    let mut watch = store.watch(KeyRange::prefix("/a/"), Revision::ZERO).expect("a watch starts");
    for i in 0..500 {
        write(&store, vec![put("/a/x", format!("{i}"))]).await;
    }
    let reply = store.propose(Command::Compact { revision: store.revision() }).await.expect("it is proposed");
    assert_eq!(reply.outcome, Ok(Outcome::Compact));
    let error = loop {
        match tokio::time::timeout(DEADLINE, watch.next()).await.expect("a watch goes on") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("ended without a word"),
        }
    };
    assert!(matches!(error, WatchError::Compacted { compacted, .. } if compacted == store.revision()), "{error}");
    assert!(watch.next().await.is_none());
    // A watch cannot start there either, but it can start at the compacted revision itself.
    let started = store.watch(KeyRange::prefix("/a/"), Revision(10)).map(|_| ());
    assert!(matches!(started, Err(WatchError::Compacted { requested: Revision(10), .. })), "{started:?}");
    let last = Revision(store.revision().0 - 1);
    let mut watch = store.watch(KeyRange::prefix("/a/"), last).expect("a watch starts");
    let events = collect(&mut watch, last, store.revision(), None).await;
    assert_eq!(events.len(), 1);
}

#[tokio::test]
async fn an_idle_watcher_gets_progress_marks() {
    let store = Store::memory_with(tight());
    let mut watch = store.watch(KeyRange::key("/idle"), Revision::ZERO).expect("a watch starts");
    let revision = write(&store, vec![put("/busy", "1")]).await;
    assert_eq!(collect(&mut watch, Revision(1), revision, None).await, []);
}

#[tokio::test]
async fn a_watch_ends_with_the_store() {
    let store = Store::memory();
    let mut watch = store.watch(KeyRange::prefix("/"), Revision::ZERO).expect("a watch starts");
    assert!(store.leadership().borrow().is_active_leader);
    store.shutdown().await.expect("it shuts down");
    assert!(!store.leadership().borrow().is_active_leader);
    let last = loop {
        match tokio::time::timeout(DEADLINE, watch.next()).await.expect("a watch ends") {
            Some(Ok(batch)) => assert!(batch.events.is_empty()),
            other => break other.map(|batch| batch.map(|_| ())),
        }
    };
    assert_eq!(last, Some(Err(WatchError::ShuttingDown)));
    assert_eq!(watch.next().await.map(|_| ()), None);
    assert_eq!(store.watch(KeyRange::prefix("/"), Revision::ZERO).map(|_| ()), Err(WatchError::ShuttingDown));
    let refused = store.txn(Txn::default()).await;
    assert_eq!(refused, Err(StoreError::ShuttingDown));
}

/// Reads a watch to its end. Returns the number of events and the error that ends it.
async fn drain(watch: &mut Watch) -> (usize, WatchError) {
    let mut events = 0;
    loop {
        match tokio::time::timeout(DEADLINE, watch.next()).await.expect("a watch ends") {
            Some(Ok(batch)) => events += batch.events.len(),
            Some(Err(error)) => {
                assert_eq!(watch.next().await.map(|_| ()), None, "nothing follows the error");
                return (events, error);
            }
            None => panic!("a watch ended without an error after {events} events"),
        }
    }
}

#[tokio::test]
async fn a_watch_whose_channel_is_full_ends_with_an_error() {
    let store = Store::memory_with(HubConfig { progress_interval: Duration::from_secs(3600), ..tight() });
    let watch = |key| store.watch(KeyRange::key(key), Revision::ZERO).expect("a watch starts");
    let (mut full, mut lagging) = (watch("/full"), watch("/lagging"));
    for _ in 0..2 {
        write(&store, vec![put("/full", "1")]).await;
    }
    for _ in 0..5 {
        write(&store, vec![put("/lagging", "1")]).await;
    }
    // When this watch has its event, all earlier events have been delivered.
    let mut other = watch("/other");
    let last = write(&store, vec![put("/other", "1")]).await;
    collect(&mut other, Revision(1), last, None).await;
    store.shutdown().await.expect("it shuts down");
    assert_eq!(drain(&mut full).await, (2, WatchError::ShuttingDown));
    assert_eq!(drain(&mut lagging).await, (2, WatchError::ShuttingDown));
}

#[tokio::test]
async fn requested_progress_is_no_older_than_the_published_revision() {
    let state = new_state();
    let source = Arc::new(Exchangeable(RwLock::new(state.clone())));
    let hub = Hub::new(source, HubConfig { progress_interval: Duration::from_secs(3600), ..tight() });
    let stop = CancellationToken::new();
    let running = tokio::spawn(hub.clone().run(stop.clone()));
    let watch = |key| hub.watch(KeyRange::key(key), Revision(1), WatchOptions::default()).expect("a watch starts");
    let (mut idle, mut full) = (watch("/idle"), watch("/x"));
    for revision in 2..=3 {
        let (revision, events) = advance(&state, revision..=revision);
        hub.publish(revision, events);
    }
    hub.mark_progress(Revision(3));
    collect(&mut idle, Revision(1), Revision(3), None).await;

    // Readers see a revision before the hub has its events.
    let mut applier = state.applier();
    let txn = Txn { success: vec![put("/y", "1")], ..Txn::default() };
    let events = applier.apply(&Command::Txn(txn)).expect("memory does not fail").events;
    state.commit(applier.finish()).expect("memory does not fail");
    assert_eq!(state.revision(), Revision(4));
    hub.mark_progress(state.revision());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    hub.publish(Revision(4), events);
    assert_eq!(collect(&mut idle, Revision(3), Revision(4), None).await, []);
    // The channel of this watch had no room for a mark.
    assert_eq!(collect(&mut full, Revision(1), Revision(4), None).await.len(), 2);
    stop.cancel();
    running.await.expect("the hub ends");
}

#[tokio::test]
async fn the_store_in_memory_serves_reads_writes_and_leases() {
    let store = Store::memory();
    let empty = store.hash_at(Revision::ZERO).await.expect("it has a hash").hash;
    let grant = Command::LeaseGrant { id: LeaseId(7), ttl_seconds: 5 };
    assert!(store.propose(grant).await.expect("it is proposed").outcome.is_ok());
    let leased = PutRequest { key: "/k".into(), value: "v".into(), lease: LeaseId(7), ..PutRequest::default() };
    let revision = write(&store, vec![Op::Put(leased)]).await;
    assert_eq!(store.revision(), revision);
    assert_ne!(store.hash_at(Revision::ZERO).await.expect("it has a hash").hash, empty);
    let request = RangeRequest::new(KeyRange::key("/k"));
    let found = store.range(&request, Consistency::Linearizable).await.expect("it reads");
    assert_eq!((found.count, found.kvs[0].value.as_ref()), (1, b"v".as_slice()));
    let revoke = Command::LeaseRevoke { id: LeaseId(7), generation: None };
    store.propose(revoke).await.expect("it is proposed").outcome.expect("the lease is there");
    let found = store.range(&request, Consistency::Local).await.expect("it reads");
    assert_eq!(found.count, 0);
    let old = store.range(&request.clone().at(revision), Consistency::Local).await.expect("it reads");
    assert_eq!(old.kvs[0].lease, LeaseId(7));
    let status = store.quorum_status().await.expect("it has a status");
    assert_eq!(status.leader.as_deref(), Some("memory"));
    assert_eq!((status.members[0].applied_index, status.members[0].revision), (3, store.revision()));
}

/// A state that can be replaced, as when a member reopens an older state or installs a snapshot.
struct Exchangeable(RwLock<Arc<State<MemoryBackend>>>);

impl WatchSource for Exchangeable {
    fn revision(&self) -> Revision {
        self.0.read().revision()
    }

    fn compacted(&self) -> Revision {
        self.0.read().compacted()
    }

    fn events_since(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
    ) -> Result<EventPage, ReadError> {
        self.0.read().clone().events_since(after, range, max_bytes, with_previous)
    }

    fn with_previous(&self, events: &[Event]) -> Result<Vec<Event>, BackendError> {
        self.0.read().clone().with_previous(events)
    }
}

fn new_state() -> Arc<State<MemoryBackend>> {
    Arc::new(State::open(MemoryBackend::default()).expect("an empty map can be read"))
}

/// Applies one write for each of the revisions, all in one batch.
fn advance(state: &State<MemoryBackend>, revisions: std::ops::RangeInclusive<u64>) -> (Revision, Vec<Event>) {
    let mut applier = state.applier();
    let mut events = Vec::new();
    for revision in revisions {
        let txn = Txn { success: vec![put("/x", revision.to_string())], ..Txn::default() };
        let applied = applier.apply(&Command::Txn(txn)).expect("memory does not fail");
        assert_eq!(applied.reply.revision, Revision(revision));
        events.extend(applied.events);
    }
    state.commit(applier.finish()).expect("memory does not fail");
    (state.revision(), events)
}

#[tokio::test]
async fn watches_continue_after_the_source_jumps_back_or_forward() {
    let first = new_state();
    let source = Arc::new(Exchangeable(RwLock::new(first.clone())));
    let hub = Hub::new(source.clone(), HubConfig { progress_interval: Duration::from_millis(20), ..tight() });
    let stop = CancellationToken::new();
    let running = tokio::spawn(hub.clone().run(stop.clone()));
    let mut watch = hub.watch(KeyRange::key("/x"), Revision(1), WatchOptions::default()).expect("a watch starts");
    let mut other = hub.watch(KeyRange::prefix("/"), Revision(1), WatchOptions::default()).expect("a watch starts");
    let (revision, events) = advance(&first, 2..=20);
    hub.publish(revision, events);
    let mut seen = collect(&mut watch, Revision(1), revision, None).await;

    // The source crashes and returns at revision 10; the log is applied again in batches of other sizes.
    let again = new_state();
    advance(&again, 2..=10);
    *source.0.write() = again.clone();
    hub.reset();
    let mut late = hub.watch(KeyRange::prefix("/"), Revision(15), WatchOptions::default()).expect("a watch starts");
    for revisions in [11..=13, 14..=23, 24..=25] {
        let (revision, events) = advance(&again, revisions);
        hub.publish(revision, events);
    }
    seen.extend(collect(&mut watch, revision, Revision(25), None).await);

    // The source installs a snapshot of a member that is further ahead.
    let further = new_state();
    advance(&further, 2..=60);
    *source.0.write() = further.clone();
    hub.reset();
    let (revision, events) = advance(&further, 61..=62);
    hub.publish(revision, events);
    seen.extend(collect(&mut watch, Revision(25), Revision(62), None).await);

    let all: Vec<_> = (2..=62).map(Revision).collect();
    let revisions = |events: &[Event]| events.iter().map(|event| event.kv().mod_revision).collect::<Vec<_>>();
    assert_eq!(revisions(&seen), all);
    assert_eq!(revisions(&collect(&mut other, Revision(1), Revision(62), None).await), all);
    assert_eq!(revisions(&collect(&mut late, Revision(15), Revision(62), None).await), all[14..]);
    stop.cancel();
    running.await.expect("the hub ends");
}

/// A state that counts how often events are read from it.
struct Counted {
    state: Arc<State<MemoryBackend>>,
    reads: AtomicUsize,
}

impl WatchSource for Counted {
    fn revision(&self) -> Revision {
        self.state.revision()
    }

    fn compacted(&self) -> Revision {
        self.state.compacted()
    }

    fn events_since(
        &self,
        after: Revision,
        range: &KeyRange,
        max_bytes: usize,
        with_previous: bool,
    ) -> Result<EventPage, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.state.events_since(after, range, max_bytes, with_previous)
    }

    fn with_previous(&self, events: &[Event]) -> Result<Vec<Event>, BackendError> {
        self.state.with_previous(events)
    }
}

#[tokio::test]
async fn the_watches_of_one_client_catch_up_in_turn() {
    let state = new_state();
    advance(&state, 2..=500);
    let source = Arc::new(Counted { state, reads: AtomicUsize::new(0) });
    let hub = Hub::new(source.clone(), tight());
    let stop = CancellationToken::new();
    let running = tokio::spawn(hub.clone().run(stop.clone()));
    let watch = |budget: &WatchBudget| {
        let options = WatchOptions { budget: Some(budget.clone()), ..WatchOptions::default() };
        hub.watch(KeyRange::key("/x"), Revision(1), options).expect("it starts")
    };
    let budget = WatchBudget::new(2, 1 << 20);
    let mut watches: Vec<_> = (0..20).map(|_| watch(&budget)).collect();
    let all_turns_taken = async {
        while source.reads.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, all_turns_taken).await.expect("two watches catch up");
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(source.reads.load(Ordering::Relaxed), 2, "the others wait until these have been read");

    // Another client has its own turns, and a dropped watch releases its turn.
    let other = collect(&mut watch(&WatchBudget::new(1, 1 << 20)), Revision(1), Revision(500), None).await;
    assert_eq!(other.len(), 499);
    drop(watches.drain(..2));
    let read = watches.iter_mut().map(|watch| collect(watch, Revision(1), Revision(500), None));
    assert!(futures::future::join_all(read).await.iter().all(|events| *events == other));
    stop.cancel();
    running.await.expect("the hub ends");
}
