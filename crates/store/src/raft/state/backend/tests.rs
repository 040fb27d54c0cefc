//! Tests of a failing disk, on a real RocksDB.

mod full_disk;

use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::fault::tests::let_no_table_be_synced;
use super::*;
use crate::raft::lifecycle::closing::close_signal;
use crate::raft::lifecycle::identity::REJOIN;

const KEYS: u64 = 4000;
/// Environment variable with the database's directory, for the process that a test starts.
const DIRECTORY: &str = "QUORATE_TEST_DIRECTORY";

fn open(path: &Path, damage: &DamageReport) -> RocksBackend {
    RocksBackend::open(path, &context(Space::new(path, 0, CancellationToken::new()), damage)).expect("it opens")
}

fn context(space: Space, damage: &DamageReport) -> BackendContext {
    let (signal, _closed) = close_signal();
    BackendContext {
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

/// Writes every key, with random values that cannot be compressed.
fn write_all(backend: &RocksBackend) {
    let mut batch = backend.batch();
    for i in 0..KEYS {
        batch.put(Table::Versions, &key(i), &rand::random::<[u8; 256]>());
    }
    backend.write(batch).expect("written");
}

/// Creates a database with `files` tables that hold all keys each. It is removed with the directory.
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

/// Creates a [`filled`] database and [damages](damage_a_table) a table of it.
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

fn assert_reported(damage: &DamageReport) {
    let reported = damage.reported().expect("the damage is reported");
    assert!(reported.contains("is damaged (Corruption: ") && reported.ends_with(REJOIN), "{reported}");
}

#[test]
fn a_read_of_a_damaged_table_reports_it() {
    let (_dir, path) = damaged(1);
    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    assert_eq!(damage.reported(), None);
    let failed = (0..KEYS).find_map(|i| backend.get(Table::Versions, &key(i)).err()).expect("some cannot be read");
    assert!(failed.to_string().contains("is damaged"), "{failed}");
    assert_reported(&damage);
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
    assert_reported(&damage);
}

#[test]
fn verification_finds_a_damaged_table() {
    let (_dir, path) = filled(1);
    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    backend.verify().expect("it is sound");
    // Rows that a deletion hides are verified as well.
    let mut batch = backend.batch();
    batch.delete_range(Table::Versions, &key(0), &key(KEYS));
    backend.write(batch).expect("written");
    backend.flush().expect("flushed");
    backend.verify().expect("it is sound");
    assert_eq!(damage.reported(), None);
    drop(backend);
    damage_a_table(&path);

    let received = damage.not_in_use();
    let backend = open(&path, &received);
    let failed = backend.verify().expect_err("a table is damaged");
    assert!(failed.to_string().contains("is damaged (Corruption: "), "{failed}");
    assert_eq!(damage.reported(), None);
    received.set_in_use(true);
    backend.verify().expect_err("the table is still damaged");
    assert_reported(&damage);
}

#[test]
fn damage_of_a_database_that_is_not_in_use_is_not_reported() {
    let (_dir, path) = damaged(1);
    let damage = DamageReport::default();
    let received = damage.not_in_use();
    let backend = open(&path, &received);
    let some = (0..KEYS).find(|i| backend.get(Table::Versions, &key(*i)).is_err()).expect("some cannot be read");
    let failed = backend.get(Table::Versions, &key(some)).expect_err("the row is damaged");
    assert!(!failed.to_string().contains(REJOIN), "{failed}");
    assert_eq!(damage.reported(), None);
    received.set_in_use(true);
    backend.get(Table::Versions, &key(some)).expect_err("the row is still damaged");
    assert_reported(&damage);
    drop(backend);

    let damage = DamageReport::default();
    let replaced = open(&path, &damage);
    replaced.make_obsolete();
    replaced.get(Table::Versions, &key(some)).expect_err("the row is still damaged");
    assert_eq!(damage.reported(), None);
}

#[test]
fn a_compaction_of_a_damaged_table_reports_it() {
    let (_dir, path) = damaged(2);
    let damage = DamageReport::default();
    let backend = open(&path, &damage);
    assert!(!backend.has_background_errors());
    backend.meet_background_errors();
    assert_eq!(damage.reported(), None);
    backend.db.compact_range_cf(backend.family(Table::Versions), None::<&[u8]>, None::<&[u8]>);
    assert_eq!(damage.reported(), None, "the error in the background was not handled yet");
    assert!(backend.has_background_errors());
    backend.meet_background_errors();
    assert_reported(&damage);
    assert!(!backend.has_background_errors());

    let mut batch = backend.batch();
    batch.put(Table::Meta, b"key", b"value");
    let refused = backend.write(batch).expect_err("it accepts no more writes");
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

/// Body of the process that must end.
fn cannot_sync(path: &Path) {
    let backend = open(path, &DamageReport::default());
    let_no_table_be_synced(path);
    write_all(&backend);
    let flushed = backend.flush();
    panic!("the process did not end: {flushed:?}");
}
