//! Tests of the log by itself; openraft's test suite runs in `raft/tests`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use tokio_util::sync::CancellationToken;

use super::record::RecordKind;
use super::*;
use crate::platform::fs::{File, FileExt};
use crate::raft::lifecycle::closing::{Closed, close_signal};
use crate::raft::types::{CommandBatch, Entry, LeaderId, LogId, Vote};
use crate::raft::upkeep::space::Space;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = bytes::Bytes::from(vec![7; bytes]);
    let payload = openraft::EntryPayload::Normal(CommandBatch::concat([command].iter()));
    Entry::new(id(term, index), payload)
}

/// Name of a file beside the log that makes the next sync fail, for tests of whole processes.
pub const FAIL_SYNC: &str = "fail-sync";

pub fn fail_if_asked(log: &Path) -> io::Result<()> {
    let is_asked = log.parent().is_some_and(|member| member.join(FAIL_SYNC).exists());
    if is_asked { Err(io::Error::other("the sync failed because a test asked for it")) } else { Ok(()) }
}

/// Name of a file in the log's directory that makes the next write fail halfway, as on a full disk, once a file for the
/// next segment is prepared.
const FILL_DISK: &str = "fill-disk";

pub fn fill_disk_if_asked(log: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let asked = log.join(FILL_DISK);
    if !asked.exists() {
        return Ok(());
    }
    file.write_all_at(&bytes[..bytes.len() / 2], at)?;
    std::fs::remove_file(asked)?;
    while !std::fs::read_dir(log)?.any(is_whole_spare) {
        std::thread::yield_now();
    }
    Err(io::ErrorKind::StorageFull.into())
}

/// A log whose drop waits until its thread has closed the files.
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

fn try_open(path: &Path, cache_bytes: usize) -> io::Result<TestLog> {
    try_open_with(path, LogOptions { cache_bytes, prepares_first: false })
}

fn try_open_with(path: &Path, options: LogOptions) -> io::Result<TestLog> {
    let (signal, closed) = close_signal();
    let log = LogStore::open(path, options, Arc::new(Space::new(path, 0, CancellationToken::new())), signal)?;
    Ok(TestLog { log: Some(log), closed })
}

fn open(path: &Path, cache_bytes: usize) -> TestLog {
    try_open(path, cache_bytes).expect("the log opens")
}

async fn indexes(log: &mut LogStore, range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    let entries = log.get_log_reader().await.try_get_log_entries(range).await.expect("readable");
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[tokio::test]
async fn a_restart_preserves_entries_vote_and_committed_id() {
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
    let segment = only_segment(dir.path());
    let mut bytes = std::fs::read(&segment).expect("readable");
    let middle = bytes.len() / 2;
    // The byte is one of an entry: the padding behind a record holds nothing that could be damaged.
    let of_an_entry = middle + bytes[middle..].iter().position(|byte| *byte == 7).expect("an entry's payload");
    bytes[of_an_entry] ^= 0xff;
    std::fs::write(&segment, bytes).expect("writable");
    let refused = try_open(dir.path(), 0).err().expect("acknowledged entries may not vanish silently");
    assert!(refused.to_string().contains("join anew"), "{refused}");
}

#[tokio::test]
async fn a_log_of_another_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    append_one_by_one(dir.path(), 3).await;
    let segment = only_segment(dir.path());
    let ours = std::fs::read(&segment).expect("readable");
    let mut other = ours.clone();
    other[6..8].copy_from_slice(b"02");
    std::fs::write(&segment, &other).expect("writable");
    let refused = try_open(dir.path(), 0).err().expect("a changed version alone is damage");
    assert!(refused.to_string().contains("damaged"), "{refused}");
    let checksum = crc32fast::hash(&other[..20]);
    other[20..24].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&segment, &other).expect("writable");
    let refused = try_open(dir.path(), 0).err().expect("its format is unknown");
    assert!(refused.to_string().contains("version 02 of the log, and this program knows version 01"), "{refused}");
    assert_eq!(std::fs::read(&segment).expect("readable"), other, "the file is unchanged");
    std::fs::write(&segment, &ours).expect("writable");
    assert_eq!(indexes(&mut open(dir.path(), 0), 0..100).await.len(), 3);
}

fn only_segment(path: &Path) -> PathBuf {
    let numbers = segment::list(path).expect("readable");
    assert_eq!(numbers.len(), 1);
    segment::path(path, numbers[0])
}

/// Appends entry after entry, each synced; returns the end of each in the file.
async fn append_one_by_one(path: &Path, count: u64) -> Vec<usize> {
    let mut log = open(path, 0);
    for index in 0..count {
        log.blocking_append([entry(1, index, 30)]).await.expect("appended");
    }
    drop(log);
    let records = records(&std::fs::read(only_segment(path)).expect("readable"));
    records.into_iter().filter(|(kind, _)| *kind == RecordKind::Entry).map(|(_, lies)| lies.end).collect()
}

/// Returns the whole records at the beginning of a segment's bytes, with their places.
fn records(bytes: &[u8]) -> Vec<(RecordKind, std::ops::Range<usize>)> {
    let salt = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes"));
    let mut at = usize::try_from(segment::Segment::first_record()).expect("a small number");
    let mut found = Vec::new();
    while let Some(header) = bytes.get(at..).and_then(record::Header::read)
        && header.payload(&bytes[at..], salt).is_some()
    {
        found.push((header.kind, at..at + header.record_bytes()));
        at += header.record_bytes();
    }
    found
}

/// Waits until the last record of the only segment of a running log is the proof of the last sync; returns its bytes.
fn bytes_at_rest(path: &Path) -> Vec<u8> {
    let began = std::time::Instant::now();
    loop {
        let bytes = std::fs::read(only_segment(path)).expect("readable");
        if records(&bytes).last().is_some_and(|(kind, _)| *kind == RecordKind::Committed) {
            return bytes;
        }
        assert!(began.elapsed().as_secs() < 60, "no record proves that the last entry was synced");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn damage_of_the_last_batch_of_a_killed_member_is_not_mistaken_for_a_torn_write() {
    let (dir, killed) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut log = open(dir.path(), 0);
    for index in 0..3 {
        log.blocking_append([entry(1, index, 30)]).await.expect("appended");
    }
    let first_life = bytes_at_rest(dir.path());
    drop(log);
    // The member starts again, and is killed before anything else is written.
    let log = open(dir.path(), 0);
    let second_life = bytes_at_rest(dir.path());
    for whole in [first_life, second_life] {
        let (_, last) = records(&whole).into_iter().rfind(|(kind, _)| *kind == RecordKind::Entry).expect("an entry");
        let segment = killed.path().join(only_segment(dir.path()).file_name().expect("a name"));
        for place in last {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            std::fs::write(&segment, &damaged).expect("writable");
            let Ok(mut found) = try_open(killed.path(), 0) else { continue };
            // A change of the padding behind an entry does no harm.
            assert_eq!(indexes(&mut found, 0..100).await.len(), 3, "byte {place}");
        }
    }
    drop(log);
}

#[tokio::test]
async fn a_torn_write_loses_nothing_that_was_written_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let ends = append_one_by_one(dir.path(), 5).await;
    let segment = only_segment(dir.path());
    let whole = std::fs::read(&segment).expect("readable");
    let before = |cut: usize| ends.iter().filter(|end| **end <= cut).count();
    let garbage = |cut: usize| [whole[..cut].to_vec(), vec![0; 100], vec![0xa5; 33]].concat();
    for cut in ends[2]..whole.len() {
        for torn in [whole[..cut].to_vec(), garbage(cut)] {
            std::fs::write(&segment, torn).expect("writable");
            let mut log = open(dir.path(), 0);
            let found = indexes(&mut log, 0..100).await.len();
            // A record ends in up to seven bytes of padding, whose loss does no harm.
            let (surely, perhaps) = (before(cut), before(cut + record::ALIGNMENT - 1));
            assert!((surely..=perhaps).contains(&found), "{found} of {surely}..={perhaps}, cut at {cut}");
            log.blocking_append([entry(2, found as u64, 30)]).await.expect("it accepts entries");
            drop(log);
            assert_eq!(indexes(&mut open(dir.path(), 0), 0..100).await.len(), found + 1, "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn damage_of_a_synced_part_is_not_mistaken_for_a_torn_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let ends = append_one_by_one(dir.path(), 6).await;
    let segment = only_segment(dir.path());
    let whole = std::fs::read(&segment).expect("readable");
    for place in 0..ends[5] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        std::fs::write(&segment, &damaged).expect("writable");
        let Ok(mut log) = try_open(dir.path(), 0) else { continue };
        // A change of the padding between two records, or of the header, does no harm.
        assert_eq!(indexes(&mut log, 0..100).await.len(), 6, "byte {place}");
    }
}

#[tokio::test]
async fn truncations_and_purges_work_across_segments() {
    const ENTRY_BYTES: usize = 4 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let count = || segment::list(dir.path()).expect("readable").len();
    let mut log = open(dir.path(), 1 << 20);
    for index in 0..20 {
        log.blocking_append([entry(1, index, ENTRY_BYTES)]).await.expect("appended");
    }
    log.save_vote(&Vote::new_committed(3, 1)).await.expect("saved");
    assert!(count() >= 3, "{} segments", count());
    // The truncation reaches into an earlier segment.
    log.truncate_after(Some(id(1, 4))).await.expect("truncated");
    for index in 5..15 {
        log.blocking_append([entry(2, index, ENTRY_BYTES)]).await.expect("appended");
    }
    let expected = |from: u64| (from..15).map(|index| (if index < 5 { 1 } else { 2 }, index)).collect::<Vec<_>>();
    assert_eq!(indexes(&mut log, 0..100).await, expected(0));
    drop(log);
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log, 0..100).await, expected(0));
    let before = count();
    log.purge(id(2, 12)).await.expect("purged");
    assert_eq!(indexes(&mut log, 0..100).await, expected(13));
    drop(log);
    assert!(count() < before && count() >= 1, "{} segments of {before}", count());
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log, 0..100).await, expected(13));
    assert_eq!(log.get_log_reader().await.read_vote().await.expect("readable"), Some(Vote::new_committed(3, 1)));
    // A purge beyond the end of the log, as after a snapshot.
    log.purge(id(5, 99)).await.expect("purged");
    log.blocking_append([entry(5, 100, 10)]).await.expect("appended");
    drop(log);
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log, 0..1000).await, [(5, 100)]);
    let state = log.get_log_state().await.expect("readable");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(5, 99)), Some(id(5, 100))));
}

#[tokio::test]
async fn a_growing_segment_is_replaced_by_a_prepared_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = LogOptions { cache_bytes: 0, prepares_first: true };
    let mut count = 0;
    for life in 1..=2 {
        let mut log = try_open_with(dir.path(), options).expect("the log opens");
        let segments = || segment::list(dir.path()).expect("readable");
        let before = segments().len();
        while segments().len() == before {
            log.blocking_append([entry(1, count, 10)]).await.expect("appended");
            count += 1;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let newest = segment::path(dir.path(), *segments().last().expect("a segment"));
        assert_eq!(std::fs::metadata(newest).expect("readable").len(), 16 << 20, "life {life}");
        assert_eq!(indexes(&mut log, 0..u64::MAX).await.len() as u64, count);
    }
    let spares = || std::fs::read_dir(dir.path()).expect("readable").filter_map(Result::ok);
    assert!(
        spares().all(|entry| !entry.file_name().to_string_lossy().starts_with("spare-")),
        "a closed log prepares no file"
    );
    assert_eq!(indexes(&mut open(dir.path(), 0), 0..u64::MAX).await.len() as u64, count);
}

#[tokio::test]
async fn a_write_that_found_no_space_is_repeated_at_the_same_place() {
    for whole in [1, 2] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = LogOptions { cache_bytes: 0, prepares_first: true };
        std::fs::write(dir.path().join(FILL_DISK), b"").expect("writable");
        let mut log = try_open_with(dir.path(), options).expect("the log opens");
        // Half of the batch is a whole entry, or a part of one. The repeated write must not go to the prepared file.
        log.blocking_append((0..whole).map(|index| entry(1, index, 1000))).await.expect("appended in the end");
        while segment::list(dir.path()).expect("readable").len() == 1 {
            let next = log.get_log_state().await.expect("readable").last_log_id.map_or(0, |last| last.index + 1);
            log.blocking_append([entry(1, next, 1000)]).await.expect("appended");
        }
        let all = indexes(&mut log, 0..u64::MAX).await;
        drop(log);
        assert_eq!(indexes(&mut open(dir.path(), 0), 0..u64::MAX).await, all);
    }
}

fn is_whole_spare(entry: io::Result<std::fs::DirEntry>) -> bool {
    let entry = entry.expect("readable");
    entry.file_name().to_string_lossy().starts_with("spare-") && entry.metadata().is_ok_and(|m| m.len() == 16 << 20)
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path(), 0);
    for index in 0..30 {
        log.blocking_append([entry(1, index, 4 << 20)]).await.expect("appended");
    }
    drop(log);
    let numbers = segment::list(dir.path()).expect("readable");
    std::fs::remove_file(segment::path(dir.path(), numbers[1])).expect("removed");
    assert!(try_open(dir.path(), 0).is_err());
}

#[tokio::test]
async fn an_incomplete_segment_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let ends = append_one_by_one(dir.path(), 3).await;
    let spare = dir.path().join("spare-0123");
    std::fs::write(&spare, b"qrtl").expect("writable");
    let mut log = open(dir.path(), 0);
    assert!(!spare.exists());
    assert_eq!(indexes(&mut log, 0..100).await.len(), ends.len());
    for index in 3..20 {
        log.blocking_append([entry(1, index, 4 << 20)]).await.expect("appended");
    }
    drop(log);
    assert!(segment::list(dir.path()).expect("readable").len() > 1);
    assert_eq!(indexes(&mut open(dir.path(), 0), 0..100).await.len(), 20);
}

#[tokio::test]
async fn a_log_that_contradicts_the_state_is_emptied() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path(), 0);
    log.blocking_append((0..10).map(|index| entry(1, index, 10))).await.expect("appended");
    let stranger = log.reconcile(id(1, 5)).expect_err("a member that has applied entries has voted");
    assert!(stranger.to_string().contains("has lost its vote"), "{stranger}");
    log.save_vote(&Vote::new(1, 1)).await.expect("a vote");
    log.reconcile(id(1, 5)).expect("they agree");
    log.reconcile(id(2, 20)).expect("the state is ahead, which openraft handles");
    assert_eq!(indexes(&mut log, 0..100).await.len(), 10);
    log.reconcile(id(2, 7)).expect("the state is right");
    let state = log.get_log_state().await.expect("readable");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(2, 7)), Some(id(2, 7))));
    log.blocking_append([entry(2, 8, 10)]).await.expect("appended");
    drop(log);
    assert_eq!(indexes(&mut open(dir.path(), 0), 0..100).await, [(2, 8)]);
}

#[tokio::test]
async fn the_stream_of_entries_to_apply_has_no_gap() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path(), 100_000);
    for index in 0..50 {
        log.blocking_append([entry(1, index, 100_000)]).await.expect("appended");
    }
    let reader = log.get_log_reader().await;
    let read = async |range: std::ops::Range<u64>| {
        let mut reader = reader.clone();
        let entries = reader.entries_stream(range).await;
        entries.map(|entry| entry.map(|entry| entry.log_id.index).ok()).collect::<Vec<_>>().await
    };
    assert_eq!(read(3..48).await, (3..48).map(Some).collect::<Vec<_>>());
    assert_eq!(read(5..5).await, []);
    assert_eq!(read(48..60).await, [Some(48), Some(49)]);
    log.purge(id(1, 9)).await.expect("purged");
    let mut reader = log.get_log_reader().await;
    let mut purged = Box::pin(reader.entries_stream(5..20).await);
    assert!(purged.next().await.expect("an answer").is_err(), "purged entries are an error");
    drop(purged);
    assert!(reader.limited_get_log_entries(5, 20).await.is_err(), "purged entries are neither skipped nor waited for");
    assert_eq!(reader.limited_get_log_entries(60, 70).await.expect("readable"), [], "later entries may still come");
}
