//! Backup of a running quorum, and its restore into a new quorum.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions, KeyValue, Txn, TxnOp};
use harness::{Cluster, Deadline, Runtime, Spec, binary, eventually, eventually_async, run};

use crate::etcd;

const MIB: usize = 1 << 20;

fn quorate(args: &[&str]) -> harness::Output {
    run(Command::new(binary("quorate")).args(args), "")
}

#[test]
fn a_restored_quorum_has_the_state_of_the_backup() {
    let cluster = Cluster::start(Spec { masters: 3, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    let config_map = |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    cluster.kubectl(&["create", "-f", "-"], &config_map("before")).ok();
    cluster.etcdctl_at("master-2", &["put", "greeting", "hello"], "").ok();

    let file = cluster.dir().join("backup");
    let path = file.to_str().expect("a path in UTF-8");
    cluster.qctl(&["backup", path], "").ok();
    let again = cluster.qctl(&["backup", path], "");
    assert!(!again.success && again.stderr.contains("exists already"), "{again:?}");
    let snapshot = cluster.dir().join("snapshot");
    let snapshot = snapshot.to_str().expect("a path in UTF-8");
    cluster.etcdctl_at("master-3", &["snapshot", "save", snapshot], "").ok();
    cluster.kubectl(&["create", "-f", "-"], &config_map("after")).ok();

    // Everything but the backup is lost.
    for master in cluster.masters() {
        cluster.kill(&master.name);
    }
    let damaged = cluster.dir().join("damaged");
    let mut bytes = fs::read(&file).expect("the backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).expect("a copy");
    for master in cluster.masters() {
        let config = master.data.join("config.toml");
        let config = config.to_str().expect("a path in UTF-8");
        let refused = quorate(&["restore", "--config", config, path]);
        assert!(!refused.success && refused.stderr.contains("is not empty"), "{refused:?}");
        fs::remove_dir_all(master.data.join("store")).expect("the old store");
        let damaged = damaged.to_str().expect("a path in UTF-8");
        let refused = quorate(&["restore", "--config", config, damaged]);
        assert!(!refused.success && refused.stderr.contains("cannot restore"), "{refused:?}");
        quorate(&["restore", "--config", config, snapshot]).ok();
    }
    cluster.revive();
    eventually("the restored state", || cluster.kubectl(&["get", "configmap", "before"], "").result());
    let after = cluster.kubectl(&["get", "configmap", "after"], "");
    assert!(after.stderr.contains("NotFound"), "{after:?}");
    assert_eq!(cluster.etcdctl_at("master-1", &["get", "greeting"], "").ok(), "greeting\nhello\n");
    cluster.kubectl(&["create", "-f", "-"], &config_map("later")).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_writes_is_a_consistent_prefix() {
    let cluster = etcd::start(3);
    let mut client = etcd::client(&cluster, &["master-1"]).await;
    // Enough data that the backup takes a moment.
    for seed in 1..=32 {
        client.put(format!("ballast/{seed}"), noise(seed), None).await.expect("a put");
    }
    let count = Arc::new(Count::default());
    let counting = tokio::spawn(count_up(client, count.clone()));
    eventually_async("some writes", || async {
        let done = count.acknowledged();
        if done >= 100 { Ok(()) } else { Err(done) }
    })
    .await;
    let file = cluster.dir().join("backup");
    let path = file.to_str().expect("a path in UTF-8");
    let (before, submitted) = back_up_beside_writes(&cluster, path, &count);
    count.is_over.store(true, Ordering::SeqCst);
    counting.await.expect("all were acknowledged");
    assert!(count.acknowledged() >= submitted, "{} of {submitted}", count.acknowledged());

    cluster.kill_at_once(&cluster.masters());
    for master in cluster.masters() {
        let config = master.data.join("config.toml");
        fs::remove_dir_all(master.data.join("store")).expect("the old store");
        quorate(&["restore", "--config", config.to_str().expect("a path in UTF-8"), path]).ok();
    }
    cluster.revive();
    eventually("the restored state", || cluster.etcdctl_at("master-1", &["get", "pair/", "--prefix"], "").result());
    let restored = counted(&cluster, "master-1").await;
    assert!((before..=submitted).contains(&restored), "{restored}, not one of {before} to {submitted}");
    for master in ["master-2", "master-3"] {
        assert_eq!(counted(&cluster, master).await, restored, "{master}");
    }
    cluster.etcdctl_at("master-2", &["put", "after", "x"], "").ok();
}

/// Progress of the client that writes ascending numbers.
#[derive(Default)]
struct Count {
    submitted: AtomicU64,
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

impl Count {
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

/// Writes each number, in one transaction, to a pair of keys and to a key of its own.
async fn count_up(mut client: Client, count: Arc<Count>) {
    for number in 1.. {
        if count.is_over.load(Ordering::SeqCst) {
            return;
        }
        count.submitted.store(number, Ordering::SeqCst);
        let keys = ["pair/a".to_owned(), "pair/b".to_owned(), log_key(number)];
        let txn = Txn::new().and_then(keys.map(|key| TxnOp::put(key, number.to_string(), None)));
        let started = Instant::now();
        // The answer may have been lost, so the retry writes the same values.
        while let Err(error) = client.txn(txn.clone()).await {
            assert!(started.elapsed() < Deadline::default().0, "{number} could not be written: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        count.acknowledged.store(number, Ordering::SeqCst);
    }
}

fn log_key(number: u64) -> String {
    format!("log/{number:08}")
}

/// Incompressible bytes.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    (0..MIB / 8).flat_map(|_| next()).collect()
}

/// Takes a backup during which writes are acknowledged. Returns the number of writes that were acknowledged before it
/// began, and submitted when it ended.
fn back_up_beside_writes(cluster: &Cluster, path: &str, count: &Count) -> (u64, u64) {
    for _ in 0..10 {
        let before = count.acknowledged();
        cluster.qctl_at("master-2", &["backup", path], "").ok();
        let after = count.acknowledged();
        let submitted = count.submitted.load(Ordering::SeqCst);
        if after >= before + 10 {
            return (before, submitted);
        }
        // No write was acknowledged during the backup, perhaps because there was no leader, so try again.
        fs::remove_file(path).expect("the backup");
    }
    panic!("no writes were acknowledged during any backup");
}

/// Returns the last number on a master; panics if an earlier one is missing or a later one exists.
async fn counted(cluster: &Cluster, master: &str) -> u64 {
    let mut client = etcd::client(cluster, &[master]).await;
    let pair = client.get("pair/", Some(GetOptions::new().with_prefix())).await.expect("a pair");
    let [a, b] = pair.kvs() else { panic!("no pair: {:?}", pair.kvs()) };
    let last = number(a);
    assert_eq!((number(b), b.mod_revision()), (last, a.mod_revision()));

    let log = client.get("log/", Some(GetOptions::new().with_prefix())).await.expect("a log");
    let found: Vec<_> = log.kvs().iter().map(|kv| (kv.key_str().expect("text").to_owned(), number(kv))).collect();
    let written: Vec<_> = (1..=last).map(|number| (log_key(number), number)).collect();
    assert!(found == written, "{} entries, up to {:?}, and not {last}", found.len(), found.last());
    assert_eq!(log.kvs().last().map(KeyValue::mod_revision), Some(a.mod_revision()));

    // Older revisions are restored as well.
    let half = &log.kvs()[log.kvs().len() / 2];
    let then = GetOptions::new().with_revision(half.mod_revision());
    let then = client.get("pair/a", Some(then)).await.expect("the pair at an older revision");
    assert_eq!(then.kvs().first().map(number), Some(number(half)));
    last
}

fn number(kv: &KeyValue) -> u64 {
    kv.value_str().expect("text").parse().expect("a number")
}
