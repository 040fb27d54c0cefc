//! Classification of RocksDB's errors.
//!
//! RocksDB reports errors as text: a class, often the operation, the file, and the system's message. It keeps the text
//! of an error in the background and returns it to the next writer. Two errors cannot be classified by their text: a
//! sync that failed with `ESTALE` (only "Stale file handle" is left), and an error of a file that has reported one
//! before ("Writer has previous error.").

/// The class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write or a sync found no space. It can be retried: RocksDB continues in another file with the data that it
    /// still has in memory; after a full quota, only once it was reopened.
    NoSpace,
    /// A sync failed, so the contents of the disk are unknown.
    SyncFailed,
    /// The data on disk is not what was written.
    Damage,
    /// RocksDB refuses writes until it has flushed or compacted more. The write can be retried.
    HeldUp,
    /// Any other error. The state is reopened; if the disk cannot be read, again and again until it can.
    Other,
}

/// Prefix of the error of a write that an earlier error in the background held up.
const HELD_UP: &str = "Result incomplete: ";
/// The error, without the prefix, of a write that was held up by full memory or by compactions that are far behind.
const STALL: &str = "Write stall";
/// The operations that RocksDB names when a sync fails (`env/io_posix.cc`).
const SYNCS: [&str; 4] = ["While fsync", "While fdatasync", "While sync_file_range", "While msync"];

impl Fault {
    /// Classifies the text of a RocksDB error.
    #[must_use]
    pub fn of(error: &str) -> Self {
        let error = error.strip_prefix(HELD_UP).unwrap_or(error);
        if error.contains("No space left on device") || is_quota(error) {
            Fault::NoSpace
        } else if error.split(": ").any(|part| SYNCS.iter().any(|sync| part.starts_with(sync))) {
            Fault::SyncFailed
        } else if error.starts_with("Corruption: ") {
            Fault::Damage
        } else if error == STALL {
            Fault::HeldUp
        } else {
            Fault::Other
        }
    }
}

/// Returns whether an error is about the space of a quota.
#[must_use]
pub fn is_quota(error: &str) -> bool {
    error.contains("Disk quota exceeded")
}

#[cfg(test)]
pub mod tests {
    use std::path::Path;

    use super::*;

    /// Makes the syncs of RocksDB's next tables fail: links them to `/dev/null`, which takes writes and refuses syncs.
    pub fn let_no_table_be_synced(directory: &Path) {
        for number in 1..100 {
            let table = directory.join(format!("{number:06}.sst"));
            if !table.exists() {
                std::os::unix::fs::symlink("/dev/null", table).expect("a link");
            }
        }
    }

    #[test]
    fn errors_are_classified_by_their_text() {
        let cases = [
            ("IO error: While fsync: /d/000012.sst: Input/output error", Fault::SyncFailed),
            ("IO error: While fdatasync: /d/MANIFEST-000004: Input/output error", Fault::SyncFailed),
            ("IO error: While fsync: a directory: Input/output error", Fault::SyncFailed),
            ("IO error: While fsync renaming file: /d/CURRENT: Input/output error", Fault::SyncFailed),
            ("IO error: While sync_file_range returned -1: /d/000012.sst: Input/output error", Fault::SyncFailed),
            ("IO error: While fdatasync mmapped file: /d/000012.sst: Input/output error", Fault::SyncFailed),
            ("Result incomplete: IO error: While fsync: /d/000012.sst: Input/output error", Fault::SyncFailed),
            (
                "IO error: DB::Open() failed --- Unable to persist Options file: IO error: While fdatasync: \
                 /d/OPTIONS-000007.dbtmp: Input/output error",
                Fault::SyncFailed,
            ),
            ("IO error: No space left on device: While appending to file: /d/000012.sst", Fault::NoSpace),
            ("IO error: No space left on device: While fsync: /d/000012.sst: No space left on device", Fault::NoSpace),
            ("IO error: While fdatasync: /d/000012.sst: Disk quota exceeded", Fault::NoSpace),
            ("Result incomplete: IO error: No space left on device: While appending to file: /d/1.sst", Fault::NoSpace),
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4 in /d/12.sst offset 0",
                Fault::Damage,
            ),
            ("Result incomplete: Corruption: bad block contents", Fault::Damage),
            (
                "Corruption: Corruption: IO error: No such file or directory: While open a file for random read: \
                 /d/000012.sst: No such file or directory",
                Fault::Damage,
            ),
            ("IO error: While appending to file: /d/000012.sst: Input/output error", Fault::Other),
            ("IO error: While pread offset 0 len 9: /d/000012.sst: Input/output error", Fault::Other),
            ("IO error: While open a file for appending: /fsync/While/1.sst: Too many open files", Fault::Other),
            ("IO error: Stale file handle", Fault::Other),
            ("Result incomplete: Write stall", Fault::HeldUp),
            ("Shutdown in progress: ", Fault::Other),
        ];
        for (error, fault) in cases {
            assert_eq!(Fault::of(error), fault, "{error}");
        }
    }

    /// Checks the errors of a real RocksDB.
    #[test]
    fn a_failed_sync_of_rocksdb_is_classified() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = rocksdb::DB::open_default(dir.path()).expect("a new one");
        let_no_table_be_synced(dir.path());
        db.put(b"key", b"value").expect("written");
        let error = db.flush().expect_err("a table is synced");
        assert_eq!(Fault::of(error.as_ref()), Fault::SyncFailed, "{error}");
        let error = db.put(b"key", b"another").expect_err("RocksDB keeps the error");
        assert_eq!(Fault::of(error.as_ref()), Fault::SyncFailed, "{error}");
    }
}
