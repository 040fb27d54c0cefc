//! Limits of the memory that clients of the etcd API can use: clients that do not read, that have many watches, or that
//! write large values.

use etcd_client::WatchStream;
use harness::Cluster;

use crate::etcd::{client, next, refusal, start};

const MIB: usize = 1 << 20;
/// Maximum size of a request in etcd.
const MAX_REQUEST_BYTES: usize = 3 << 19;
/// Limit of a member's memory. A queue that grows with every write or every watch would exceed it.
const MAX_RESIDENT_BYTES: u64 = 500 << 20;

const WATCHES: usize = 10_000;
/// Each key is watched twice.
const WATCHED_KEYS: usize = WATCHES / 2;

const WRITES: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_for_every_client() {
    let cluster = start(3);
    the_size_of_a_request_is_limited(&cluster).await;
    // Each case has its own master, so that the memory of a master is due to one case.
    one_stream_can_have_many_watches(&cluster, "master-3").await;
    an_unread_watch_uses_bounded_memory(&cluster, "master-2").await;
}

async fn the_size_of_a_request_is_limited(cluster: &Cluster) {
    let mut client = client(cluster, &["master-1"]).await;
    let taken = vec![1; MAX_REQUEST_BYTES - 1024];
    client.put("size", taken.clone(), None).await.expect("a put");
    let refused = refusal(client.put("size", vec![2; MAX_REQUEST_BYTES + 1024], None).await);
    assert_eq!(refused, ("InvalidArgument".to_owned(), "etcdserver: request is too large".to_owned()));
    let (code, message) = refusal(client.put("size", vec![3; 2 * MIB + 1024], None).await);
    assert_eq!(code, "ResourceExhausted", "{message}");
    let found = client.get("size", None).await.expect("a get");
    let found = found.kvs().first().expect("a key");
    assert!(found.version() == 1 && found.value() == taken, "version {}", found.version());
}

async fn one_stream_can_have_many_watches(cluster: &Cluster, master: &str) {
    let mut client = client(cluster, &[master]).await;
    let key = |place: usize| format!("many/{}", place % WATCHED_KEYS);
    let (mut requests, mut answers) = client.watch(key(0), None).await.expect("a watch").split();
    let asked = async {
        for place in 1..WATCHES {
            requests.watch(key(place), None).await.expect("a request");
        }
    };
    let created = async {
        let mut ids = Vec::new();
        while ids.len() < WATCHES {
            let answer = next(&mut answers).await;
            assert!(answer.created() && !answer.canceled(), "{answer:?}");
            ids.push(answer.watch_id());
        }
        ids
    };
    let ((), ids) = tokio::join!(asked, created);

    let put = client.put(key(77), "x", None).await.expect("a put");
    let revision = put.header().expect("a header").revision();
    let mut delivered = Vec::new();
    while delivered.len() < 2 {
        let answer = next(&mut answers).await;
        delivered.extend(answer.events().iter().map(|_| answer.watch_id()));
    }
    // The progress response comes after all events of the watches.
    requests.request_progress().await.expect("a request");
    loop {
        let answer = next(&mut answers).await;
        if answer.events().is_empty() {
            assert!(!answer.canceled() && answer.header().is_some_and(|h| h.revision() >= revision), "{answer:?}");
            break;
        }
        delivered.extend(answer.events().iter().map(|_| answer.watch_id()));
    }
    let mut expected = [ids[77], ids[77 + WATCHED_KEYS]];
    delivered.sort_unstable();
    expected.sort_unstable();
    assert_eq!(delivered, expected);
    assert_is_small(cluster, master);
}

async fn an_unread_watch_uses_bounded_memory(cluster: &Cluster, master: &str) {
    let key = "large";
    // The two clients have separate connections, so that unread data does not block the other client.
    let (mut slow, mut quick) = (client(cluster, &[master]).await, client(cluster, &[master]).await);
    let mut stalled = slow.watch(key, None).await.expect("a watch");
    assert!(next(&mut stalled).await.created());
    let mut read = quick.watch(key, None).await.expect("a watch");
    assert!(next(&mut read).await.created());

    let mut writer = client(cluster, &["master-1"]).await;
    let written = async {
        for number in 0..WRITES {
            let mut value = vec![0; MIB];
            value[..8].copy_from_slice(&number.to_be_bytes());
            writer.put(key, value, None).await.expect("a put");
        }
    };
    let ((), seen) = tokio::join!(written, numbers(&mut read));
    let all: Vec<u64> = (0..WRITES).collect();
    assert_eq!(seen, (all.clone(), None));
    assert_is_small(cluster, master);

    match numbers(&mut stalled).await {
        (seen, None) => assert_eq!(seen, all),
        // The server may cancel a watch that is too slow, and gives a reason.
        (seen, Some(reason)) => assert!(all.starts_with(&seen) && !reason.is_empty(), "{seen:?}"),
    }
    assert_is_small(cluster, master);
}

/// Returns the numbers at the start of the delivered values, and the reason if the watch was cancelled early.
async fn numbers(watch: &mut WatchStream) -> (Vec<u64>, Option<String>) {
    let mut seen = Vec::new();
    while (seen.len() as u64) < WRITES {
        let answer = next(watch).await;
        seen.extend(answer.events().iter().map(|event| {
            let value = event.kv().expect("a key").value();
            assert_eq!(value.len(), MIB);
            u64::from_be_bytes(*value.first_chunk().expect("a number"))
        }));
        if answer.canceled() {
            return (seen, Some(answer.cancel_reason().to_owned()));
        }
    }
    (seen, None)
}

fn assert_is_small(cluster: &Cluster, master: &str) {
    let resident = cluster.member(master).resident_bytes();
    assert!(resident < MAX_RESIDENT_BYTES, "{master} holds {} MiB", resident >> 20);
}
