//! A disk that is really full: a small one in memory, so only for root.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::*;

const SIZE: &str = "size=128m";
const PAGE: [u8; 4096] = [0; 4096];
/// More than RocksDB keeps in memory.
const ROUNDS: usize = 30;
const DEADLINE: Duration = Duration::from_secs(120);

/// Mounted until it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` when this process may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(SIZE)).ok()?;
        Some(SmallDisk(dir))
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        loop {
            match ballast.write(&PAGE) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A failure leaves a mount that the next reboot removes.
        umount2(self.0.path(), MntFlags::MNT_DETACH).ok();
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Writes more than fits into memory, with another who flushes meanwhile: those writes that RocksDB holds up, and flushes
/// that are tried again and again, have kept it from going on.
#[test]
fn writes_go_on_when_a_full_disk_has_space_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = open(&disk.0.path().join("database"), &DamageReport::default());
    write_all(&backend);
    backend.flush().expect("there is space");
    for _ in 0..2 {
        disk.fill();
        let is_written = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (0..ROUNDS).for_each(|_| write_all(&backend));
                is_written.store(true, Ordering::Relaxed);
            });
            let flusher = scope.spawn(|| {
                while !is_written.load(Ordering::Relaxed) {
                    backend.flush().expect("flushed in the end");
                    thread::sleep(Duration::from_millis(10));
                }
            });
            wait_until("a write or flush finds no space", || backend.space.is_full());
            assert!(!writer.is_finished());
            wait_until("RocksDB itself finds none", || backend.has_background_errors());
            disk.free();
            wait_until("all is written", || writer.is_finished());
            wait_until("all is flushed", || flusher.is_finished());
        });
        backend.meet_background_errors();
        assert!(backend.space.fill().expect("there is space"));
    }
    let rows = (0..KEYS).filter(|i| backend.get(Table::Versions, &key(*i)).expect("readable").is_some());
    assert_eq!(rows.count() as u64, KEYS);
}

#[test]
fn nobody_waits_for_space_when_the_state_is_closed() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = open(&disk.0.path().join("database"), &DamageReport::default());
    write_all(&backend);
    disk.fill();
    thread::scope(|scope| {
        let flushes = [scope.spawn(|| backend.flush()), scope.spawn(|| backend.flush())];
        wait_until("a flush finds no space", || backend.space.is_full());
        assert!(flushes.iter().all(|flush| !flush.is_finished()));
        backend.stop_waiting();
        for flush in flushes {
            let error = flush.join().expect("no panic").expect_err("there is no space");
            assert!(error.to_string().contains("No space left on device"), "{error}");
        }
    });
    backend.flush().expect_err("nor is there now");
    assert_eq!(backend.get(Table::Versions, &key(1)).expect("readable").map(|value| value.len()), Some(256));
}
