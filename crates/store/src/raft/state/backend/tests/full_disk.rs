//! A disk that is really full: a small one in memory, so only for root.

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
/// More than RocksDB keeps in memory.
const ROUNDS: usize = 30;
const BALLAST: &str = "ballast";
const RESERVE_BYTES: u64 = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

/// Mounted until it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` when this process may not mount.
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

    /// A database on it, with a reserve, and some keys.
    fn database(&self) -> RocksBackend {
        let space = Space::new(self.0.path(), RESERVE_BYTES, CancellationToken::new());
        assert!(space.fill().expect("a file"));
        let surroundings = surroundings(space, &DamageReport::default());
        let backend = RocksBackend::open(&self.0.path().join("database"), &surroundings).expect("it opens");
        write_all(&backend);
        backend
    }

    /// Takes all space that there is.
    fn fill(&self) {
        fill(&self.0.path().join(BALLAST));
    }

    /// Takes all space that there is, and what others give up.
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

/// Does something again and again until this is dropped.
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

/// Writes more than fits into memory, with one beside it who flushes and one who fills the reserve: writes that RocksDB
/// holds up, and flushes that are tried again and again, have kept it from going on.
#[test]
fn writes_go_on_when_a_full_disk_has_space_again() {
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
fn the_reserve_is_left_to_what_was_written() {
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
fn nobody_waits_for_space_when_the_state_is_closed() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = disk.database();
    let copy = disk.0.path().join("copy");
    let _full = disk.keep_full();
    thread::scope(|scope| {
        let _ends = backend.waits.clone().drop_guard();
        let flushes = [scope.spawn(|| backend.flush()), scope.spawn(|| backend.flush())];
        wait_until("a flush finds no space", || backend.has_background_errors());
        assert!(flushes.iter().all(|flush| !flush.is_finished()));
        backend.try_checkpoint(&copy).expect_err("nobody waits with a copy");
        let mut batch = backend.batch();
        batch.delete(Table::Versions, &key(0));
        backend.try_write(batch).expect_err("nor with such a write");
        backend.waits.cancel();
        for flush in flushes {
            let error = flush.join().expect("no panic").expect_err("there is no space");
            assert!(error.to_string().contains("No space left on device"), "{error}");
        }
    });
    backend.flush().expect_err("nor is there now");
    assert_eq!(backend.get(Table::Versions, &key(0)).expect("readable").map(|value| value.len()), Some(256));
}
