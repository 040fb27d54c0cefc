//! What an error of RocksDB means for this member.
//!
//! RocksDB tells errors as text: a class, often where in its work it was, the file, and what the system said. The text
//! of an error in the background is kept, and told to who writes next. Not to be known from it are a sync that failed
//! with `ESTALE` (only "Stale file handle" is left), and what is said about a file whose earlier error was told already
//! ("Writer has previous error.").

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no space, be it for a write or at a sync. It can be tried again: RocksDB goes on in another file, with
    /// what it still has in memory; if it was a quota, after it was opened anew.
    NoSpace,
    /// A sync failed: nobody knows what is on the disk.
    SyncFailed,
    /// What is on the disk is not what was written.
    Damage,
    /// Too much is to be flushed or compacted before. It can be tried again.
    HeldUp,
    /// Something else. The state is opened anew; where the disk cannot be read, again and again until it can.
    Other,
}

/// Of a write that was held up by an error in the background.
const HELD_UP: &str = "Result incomplete: ";
/// What is left of one that was held up because memory is full, or compactions are far behind.
const STALL: &str = "Write stall";
/// What RocksDB was at when a sync failed (`env/io_posix.cc`).
const SYNCS: [&str; 4] = ["While fsync", "While fdatasync", "While sync_file_range", "While msync"];

impl Fault {
    /// Of the text of an error.
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

/// Whether the space that an error is about is that of a quota.
#[must_use]
pub fn is_quota(error: &str) -> bool {
    error.contains("Disk quota exceeded")
}

#[cfg(test)]
pub mod tests {
    use std::path::Path;

    use super::*;

    /// Has RocksDB write its next tables to where everything can be written and nothing synced.
    pub fn let_no_table_be_synced(directory: &Path) {
        for number in 1..100 {
            let table = directory.join(format!("{number:06}.sst"));
            if !table.exists() {
                std::os::unix::fs::symlink("/dev/null", table).expect("a link");
            }
        }
    }

    #[test]
    fn a_fault_is_known_by_its_text() {
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

    /// What RocksDB really says.
    #[test]
    fn a_sync_that_fails_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = rocksdb::DB::open_default(dir.path()).expect("a new one");
        let_no_table_be_synced(dir.path());
        db.put(b"key", b"value").expect("written");
        let error = db.flush().expect_err("a table is synced");
        assert_eq!(Fault::of(error.as_ref()), Fault::SyncFailed, "{error}");
        let error = db.put(b"key", b"another").expect_err("it remembers");
        assert_eq!(Fault::of(error.as_ref()), Fault::SyncFailed, "{error}");
    }
}
