//! What is made of a disk that fails, on a real RocksDB.

mod full_disk;

use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::fault::tests::let_no_table_be_synced;
use super::*;
use crate::raft::closing::close_signal;
use crate::raft::identity::REJOIN;

const KEYS: u64 = 4000;
/// Of the process that a test starts.
const DIRECTORY: &str = "QUORATE_TEST_DIRECTORY";

fn open(path: &Path, damage: &DamageReport) -> RocksBackend {
    RocksBackend::open(path, &surroundings(Space::new(path, 0, CancellationToken::new()), damage)).expect("it opens")
}

fn surroundings(space: Space, damage: &DamageReport) -> Surroundings {
    let (signal, _closed) = close_signal();
    Surroundings {
        cache: Cache::new_lru_cache(1 << 20),
        space: Arc::new(space),
        damage: damage.clone(),
        closed: Arc::new(signal),
        waits: CancellationToken::new(),
    }
}

fn key(i: u64) -> Vec<u8> {
    format!("key {i:06}").into_bytes()
}

/// Writes every key, with values that take the room that they seem to.
fn write_all(backend: &RocksBackend) {
    let mut batch = backend.batch();
    for i in 0..KEYS {
        batch.put(Table::Versions, &key(i), &rand::random::<[u8; 256]>());
    }
    backend.write(batch).expect("written");
}

/// A database with so many files of all keys, one above the other. It goes with the directory.
fn filled(files: usize) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("database");
    let backend = open(&path, &DamageReport::default());
    for _ in 0..files {
        write_all(&backend);
        backend.flush().expect("flushed");
    }
    (dir, path)
}

/// [`filled`], and then [damaged](damage_a_table).
fn damaged(files: usize) -> (TempDir, PathBuf) {
    let (dir, path) = filled(files);
    damage_a_table(&path);
    (dir, path)
}

/// Changes some bytes in the middle of the biggest table.
pub fn damage_a_table(database: &Path) {
    let files = std::fs::read_dir(database).expect("a directory").map(|entry| entry.expect("an entry").path());
    let tables = files.filter(|file| file.extension().is_some_and(|extension| extension == "sst"));
    let size = |file: &PathBuf| std::fs::metadata(file).expect("a file").len();
    let biggest = tables.max_by_key(size).expect("it was flushed");
    let mut bytes = std::fs::read(&biggest).expect("readable");
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 16] {
        *byte ^= 0xff;
    }
    std::fs::write(&biggest, bytes).expect("writable");
}

fn assert_told(damage: &DamageReport) {
    let told = damage.told().expect("the damage is told");
    assert!(told.contains("is damaged (Corruption: ") && told.ends_with(REJOIN), "{told}");
}

#[test]
fn a_read_of_a_damaged_table_tells() {
    let (_dir, path) = damaged(1);
    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    assert_eq!(damage.told(), None);
    let failed = (0..KEYS).find_map(|i| backend.get(Table::Versions, &key(i)).err()).expect("some cannot be read");
    assert!(failed.to_string().contains("is damaged"), "{failed}");
    assert_told(&damage);
    drop(backend);

    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    let mut cursor = backend.cursor(Table::Versions, &[], None);
    let mut found = cursor.seek(&[]);
    let mut rows = 0;
    while matches!(found, Ok(true)) {
        rows += 1;
        found = cursor.next();
    }
    let failed = found.expect_err("some cannot be read");
    assert!(rows < KEYS && failed.to_string().contains("is damaged"), "after {rows} rows: {failed}");
    assert_told(&damage);
}

#[test]
fn a_damaged_table_is_found_before_it_is_passed_on() {
    let (_dir, path) = filled(1);
    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    backend.verify().expect("it is sound");
    // What is hidden counts as well.
    let mut batch = backend.batch();
    batch.delete_range(Table::Versions, &key(0), &key(KEYS));
    backend.write(batch).expect("written");
    backend.flush().expect("flushed");
    backend.verify().expect("it is sound");
    assert_eq!(damage.told(), None);
    drop(backend);
    damage_a_table(&path);

    let received = damage.unheard();
    let backend = open(&path, &received);
    let failed = backend.verify().expect_err("it is not");
    assert!(failed.to_string().contains("is damaged (Corruption: "), "{failed}");
    assert_eq!(damage.told(), None);
    received.set_heard(true);
    backend.verify().expect_err("nor now");
    assert_told(&damage);
}

#[test]
fn damage_of_what_does_not_count_is_told_to_nobody() {
    let (_dir, path) = damaged(1);
    let damage = DamageReport::default();
    let received = damage.unheard();
    let backend = open(&path, &received);
    let some = (0..KEYS).find(|i| backend.get(Table::Versions, &key(*i)).is_err()).expect("some cannot be read");
    let failed = backend.get(Table::Versions, &key(some)).expect_err("nor again");
    assert!(!failed.to_string().contains(REJOIN), "{failed}");
    assert_eq!(damage.told(), None);
    received.set_heard(true);
    backend.get(Table::Versions, &key(some)).expect_err("nor now");
    assert_told(&damage);
    drop(backend);

    let damage = DamageReport::default();
    let replaced = open(&path, &damage);
    replaced.make_obsolete();
    replaced.get(Table::Versions, &key(some)).expect_err("it is the same");
    assert_eq!(damage.told(), None);
}

#[test]
fn a_compaction_of_a_damaged_table_tells() {
    let (_dir, path) = damaged(2);
    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    assert!(!backend.has_background_errors());
    backend.meet_background_errors();
    assert_eq!(damage.told(), None);
    backend.db.compact_range_cf(backend.family(Table::Versions), None::<&[u8]>, None::<&[u8]>);
    assert_eq!(damage.told(), None, "nobody has asked");
    // Nobody writes.
    assert!(backend.has_background_errors());
    backend.meet_background_errors();
    assert_told(&damage);
    assert!(!backend.has_background_errors());

    let mut batch = backend.batch();
    batch.put(Table::Meta, b"key", b"value");
    let refused = backend.write(batch).expect_err("it takes no more");
    assert!(refused.to_string().contains("is damaged"), "{refused}");
}

#[test]
fn a_failed_sync_of_the_state_ends_the_process() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return cannot_sync(Path::new(&directory));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let name = "raft::state::backend::tests::a_failed_sync_of_the_state_ends_the_process";
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(DIRECTORY, dir.path().join("database"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("a process");
    assert_eq!(status.code(), Some(EX_IOERR), "{status}");
}

/// What the process does that is to end.
fn cannot_sync(path: &Path) {
    let backend = open(path, &DamageReport::default());
    let_no_table_be_synced(path);
    write_all(&backend);
    let flushed = backend.flush();
    panic!("it goes on: {flushed:?}");
}
