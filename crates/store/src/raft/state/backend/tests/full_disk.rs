//! Tests on a disk that is really full: a small tmpfs, so only root can run them.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use tokio_util::sync::DropGuard;

use super::*;

const SIZE: &str = "size=128m";
const PAGE: [u8; 4096] = [0; 4096];
/// Number of rounds of writes; together they exceed what RocksDB keeps in memory.
const ROUNDS: usize = 30;
const BALLAST: &str = "ballast";
const RESERVE_BYTES: u64 = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

/// A small file system, mounted until this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts the file system; `None` when this process may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        match mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(SIZE)) {
            Ok(()) => Some(SmallDisk(dir)),
            Err(Errno::EPERM | Errno::EACCES) => {
                tracing::warn!("skipped: a small disk cannot be mounted");
                None
            }
            Err(error) => panic!("a small disk cannot be mounted: {error}"),
        }
    }

    /// Creates a database on the disk, with a reserve and some keys.
    fn database(&self) -> RocksBackend {
        let space = Space::new(self.0.path(), RESERVE_BYTES, CancellationToken::new());
        assert!(space.fill().expect("a file"));
        let context = context(space, &DamageReport::default());
        let backend = RocksBackend::open(&self.0.path().join("database"), &context).expect("it opens");
        write_all(&backend);
        backend
    }

    /// Fills all space that is free now.
    fn fill(&self) {
        fill(&self.0.path().join(BALLAST));
    }

    /// Fills all space, and keeps filling the space that others free.
    fn keep_full(&self) -> KeptFull {
        let ballast = self.0.path().join(BALLAST);
        fill(&ballast);
        let is_freed = Arc::new(AtomicBool::new(false));
        let filling = thread::spawn({
            let is_freed = is_freed.clone();
            move || {
                while !is_freed.load(Ordering::Relaxed) {
                    fill(&ballast);
                    thread::sleep(Duration::from_millis(10));
                }
                std::fs::remove_file(ballast).expect("it is there");
            }
        });
        KeptFull { is_freed, filling: Some(filling) }
    }
}

fn fill(ballast: &Path) {
    let mut ballast = File::options().create(true).append(true).open(ballast).expect("a file");
    loop {
        match ballast.write(&PAGE) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A disk that is full until this is dropped.
struct KeptFull {
    is_freed: Arc<AtomicBool>,
    filling: Option<thread::JoinHandle<()>>,
}

impl Drop for KeptFull {
    fn drop(&mut self) {
        self.is_freed.store(true, Ordering::Relaxed);
        let filling = self.filling.take().expect("dropped once");
        filling.join().expect("no panic");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            tracing::warn!(%error, "a small disk is left behind until the next reboot");
        }
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Repeats `work` until the returned guard is dropped.
fn repeat<'a>(scope: &'a thread::Scope<'a, '_>, work: impl Fn() + Send + 'a) -> DropGuard {
    let ended = CancellationToken::new();
    let is_ended = ended.clone();
    scope.spawn(move || {
        while !is_ended.is_cancelled() {
            work();
            thread::sleep(Duration::from_millis(10));
        }
    });
    ended.drop_guard()
}

/// Writes more than fits into memory while one thread flushes and another fills the reserve. Writes held up inside
/// RocksDB, and flushes that were retried again and again, used to prevent its recovery.
#[test]
fn writes_continue_when_a_full_disk_has_space_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = disk.database();
    backend.flush().expect("there is space");
    for _ in 0..2 {
        thread::scope(|scope| {
            let full = disk.keep_full();
            let writer = scope.spawn(|| (0..ROUNDS).for_each(|_| write_all(&backend)));
            let _flusher = repeat(scope, || backend.flush().expect("flushed in the end"));
            let _filler = repeat(scope, || {
                backend.space.fill().expect("it is written or not");
            });
            wait_until("a write or flush finds no space", || backend.space.is_full());
            wait_until("RocksDB itself finds none", || backend.has_background_errors());
            assert!(!writer.is_finished());
            drop(full);
            wait_until("all is written", || writer.is_finished());
        });
        backend.meet_background_errors();
        assert!(backend.space.fill().expect("a file") && !backend.space.is_full());
    }
    let rows = (0..KEYS).filter(|i| backend.get(Table::Versions, &key(*i)).expect("readable").is_some());
    assert_eq!(rows.count() as u64, KEYS);
}

#[test]
fn a_flush_on_a_full_disk_uses_the_reserve() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = disk.database();
    disk.fill();
    thread::scope(|scope| {
        let _filler = repeat(scope, || {
            backend.space.fill().expect("it is written or not");
        });
        backend.flush().expect("there is the reserve");
    });
    assert!(backend.has_background_errors() && !backend.space.fill().expect("a file"));
}

#[test]
fn closing_the_state_ends_waits_for_space() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = disk.database();
    let copy = disk.0.path().join("copy");
    let _full = disk.keep_full();
    thread::scope(|scope| {
        let _ends = backend.waits.clone().drop_guard();
        let flushes = [scope.spawn(|| backend.flush()), scope.spawn(|| backend.flush())];
        wait_until("a flush finds no space", || backend.has_background_errors());
        assert!(flushes.iter().all(|flush| !flush.is_finished()));
        backend.try_checkpoint(&copy).expect_err("a copy does not wait");
        let mut batch = backend.batch();
        batch.delete(Table::Versions, &key(0));
        backend.try_write(batch).expect_err("nor does such a write");
        backend.waits.cancel();
        for flush in flushes {
            let error = flush.join().expect("no panic").expect_err("there is no space");
            assert!(error.to_string().contains("No space left on device"), "{error}");
        }
    });
    backend.flush().expect_err("nor is there now");
    assert_eq!(backend.get(Table::Versions, &key(0)).expect("readable").map(|value| value.len()), Some(256));
}
