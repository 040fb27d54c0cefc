//! Watches of one value of an index receive the changes from it and to it, and cost nothing for other events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use quorate_api::Revision;
use quorate_mvcc::{Event, KeyRange, KeyValue};
use quorate_store::{IndexedValue, Store, WatchOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{collect, delete, put, tight, write};

/// Returns the watch option for the events of objects that have, or had, this value.
fn having(value: impl ToString, asked: &Arc<AtomicUsize>) -> WatchOptions {
    let asked = Arc::clone(asked);
    let values_of = move |event: &Event| -> Option<Vec<String>> {
        asked.fetch_add(1, Ordering::Relaxed);
        let value = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let now = matches!(event, Event::Put { .. }).then(|| value(&event.kv().value));
        Some(now.into_iter().chain(event.prev().map(|prev| value(&prev.value))).collect())
    };
    let indexed = IndexedValue { index: "value", values_of: Arc::new(values_of), value: value.to_string() };
    WatchOptions { indexed: Some(indexed), ..WatchOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_a_value_receive_the_changes_from_it_and_to_it() {
    let store = Store::memory_with(tight());
    let asked = Arc::new(AtomicUsize::new(0));
    let first = store.revision();
    let until = Revision(1200);
    let mut rng = StdRng::seed_from_u64(11);
    let all = WatchOptions { with_previous: true, ..WatchOptions::default() };
    let mut all = store.watch_with(KeyRange::prefix("/a/"), first, all).expect("a watch starts");
    let everything = tokio::spawn(async move { collect(&mut all, first, until, None).await });
    let mut watchers = JoinSet::new();
    let mut revision = first;
    while revision < until {
        if rng.random_bool(0.1) {
            let (value, after) = (rng.random_range(0..8), Revision(rng.random_range(1..=revision.0)));
            let options = having(value, &asked);
            let mut watch = store.watch_with(KeyRange::prefix("/a/"), after, options).expect("a watch starts");
            let pace = rng.random_bool(0.5).then(|| StdRng::seed_from_u64(rng.random()));
            watchers.spawn(async move { (value.to_string(), after, collect(&mut watch, after, until, pace).await) });
        }
        let key = format!("/a/{}", rng.random_range(0..6));
        let value = rng.random_range(0..8).to_string();
        let op = if rng.random_bool(0.1) { delete(KeyRange::key(key)) } else { put(key, value) };
        // A deletion of nothing is no revision.
        revision = write(&store, vec![op, put("/b/x", "0")]).await;
    }
    let everything = everything.await.expect("the watcher of everything ends");
    assert!(watchers.len() > 50, "only {} watchers", watchers.len());
    while let Some(done) = watchers.join_next().await {
        let (value, after, events) = done.expect("a watcher ends well");
        let has = |kv: &KeyValue| kv.value == value;
        let is_mine = |event: &&Event| {
            let is_now = matches!(event, Event::Put { .. }) && has(event.kv());
            event.kv().mod_revision > after && (is_now || event.prev().is_some_and(has))
        };
        let expected: Vec<_> = everything.iter().filter(is_mine).cloned().collect();
        assert_eq!(events, expected, "{value} after {after}");
    }
}

/// The work for an event does not depend on the number of watches of other values.
#[tokio::test]
async fn an_event_is_examined_once_however_many_values_are_watched() {
    let store = Store::memory();
    let asked = Arc::new(AtomicUsize::new(0));
    let watch = |value: usize| store.watch_with(KeyRange::prefix("/a/"), Revision::ZERO, having(value, &asked));
    let mut watches: Vec<_> = (0..2000).map(|value| watch(value).expect("a watch starts")).collect();
    for (value, watch) in watches.iter_mut().enumerate().take(20) {
        let revision = write(&store, vec![put(format!("/a/{value}"), value.to_string())]).await;
        let events = collect(watch, Revision::ZERO, revision, None).await;
        assert_eq!(events.len(), 1);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 20);
    let others = watches.split_off(20);
    for mut watch in others {
        while let Some(batch) = watch.next().now_or_never() {
            assert!(batch.expect("a batch").expect("a watch does not fail").events.is_empty(), "only progress marks");
        }
    }
}
