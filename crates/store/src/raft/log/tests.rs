//! The log through its own eyes; openraft's suite is in `raft/tests`.

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use rocksdb::Cache;

use super::*;
use crate::raft::closing::{Closed, close_signal};
use crate::raft::types::{CommandBatch, Entry, LogId, TypeConfig, Vote};

type LeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = bytes::Bytes::from(vec![0; bytes]);
    let payload = openraft::EntryPayload::Normal(CommandBatch::concat([command].iter()));
    Entry::new(id(term, index), payload)
}

/// A log whose drop waits until its thread has closed the database: a process that exits in the middle of that aborts.
struct TestLog {
    log: Option<LogStore>,
    closed: Closed,
}

impl std::ops::Deref for TestLog {
    type Target = LogStore;

    fn deref(&self) -> &LogStore {
        self.log.as_ref().expect("it is there until the drop")
    }
}

impl std::ops::DerefMut for TestLog {
    fn deref_mut(&mut self) -> &mut LogStore {
        self.log.as_mut().expect("it is there until the drop")
    }
}

impl Drop for TestLog {
    fn drop(&mut self) {
        self.log = None;
        let started = std::time::Instant::now();
        while !self.closed.is_closed() && started.elapsed() < std::time::Duration::from_secs(60) {
            std::thread::yield_now();
        }
    }
}

fn open(path: &std::path::Path, cache_bytes: usize) -> TestLog {
    let (signal, closed) = close_signal();
    let log = LogStore::open(path, &Cache::new_lru_cache(1 << 20), LogOptions { cache_bytes }, signal);
    TestLog { log: Some(log.expect("the log opens")), closed }
}

async fn indexes(log: &mut LogStore, range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    let entries = log.get_log_reader().await.try_get_log_entries(range).await.expect("readable");
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path(), 0);
    log.blocking_append((0..100).map(|index| entry(1, index, 100))).await.expect("appended");
    log.truncate_after(Some(id(1, 59))).await.expect("truncated");
    log.blocking_append((60..80).map(|index| entry(2, index, 100))).await.expect("appended");
    log.purge(id(1, 9)).await.expect("purged");
    log.save_vote(&Vote::new_committed(2, 1)).await.expect("saved");
    log.save_committed(Some(id(2, 70))).await.expect("saved");
    let expected: Vec<_> = (10..60).map(|index| (1, index)).chain((60..80).map(|index| (2, index))).collect();
    assert_eq!(indexes(&mut log, 0..1000).await, expected, "before");
    drop(log);

    let mut log = open(dir.path(), 1 << 20);
    assert_eq!(indexes(&mut log, 0..1000).await, expected, "after");
    let state = log.get_log_state().await.expect("readable");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 9)), Some(id(2, 79))));
    assert_eq!(log.read_committed().await.expect("readable"), Some(id(2, 70)));
    let vote = log.get_log_reader().await.read_vote().await.expect("readable");
    assert_eq!(vote, Some(Vote::new_committed(2, 1)));
}

#[tokio::test]
async fn memory_and_disk_join_without_a_gap() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path(), 2000);
    for index in 0..100 {
        log.blocking_append([entry(1, index, 100)]).await.expect("appended");
    }
    for start in [0, 50, 80, 95] {
        let expected: Vec<_> = (start..100).map(|index| (1, index)).collect();
        assert_eq!(indexes(&mut log, start..100).await, expected);
    }
    let limited = log.get_log_reader().await.limited_get_log_entries(0, 100).await.expect("readable");
    assert_eq!(limited.first().map(|entry| entry.log_id.index), Some(0));
}

#[tokio::test]
async fn a_damaged_log_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path(), 0);
    for index in 0..50 {
        log.blocking_append([entry(1, index, 1000)]).await.expect("appended");
    }
    drop(log);
    let wal = std::fs::read_dir(dir.path())
        .expect("readable")
        .map(|file| file.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|path| path.metadata().expect("readable").len())
        .expect("a WAL");
    let mut bytes = std::fs::read(&wal).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&wal, bytes).expect("writable");
    let (signal, _closed) = close_signal();
    let reopened = LogStore::open(dir.path(), &Cache::new_lru_cache(1 << 20), LogOptions::default(), signal);
    assert!(reopened.is_err(), "acknowledged entries may not vanish silently");
}
