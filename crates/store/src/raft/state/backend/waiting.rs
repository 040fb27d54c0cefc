//! Waits for space, and for RocksDB's own work, outside of RocksDB.
//!
//! RocksDB recovers by itself some seconds after a full disk has space again: it flushes its memory and accepts writes.
//! Two things prevent that forever (as of 11.8). A write that waits inside RocksDB meanwhile: the flush waits for its
//! turn behind that write, and the write waits for the flush. And flushes that are requested again and again, since the
//! recovery waits until none is pending. So no write waits inside RocksDB, no flush waits there for compactions, and a
//! RocksDB with an error only gets probes of whether it has recovered.

use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_mvcc::Table;
use rocksdb::{Error, WriteBatch, WriteOptions};

use super::super::fault::{self, Fault};
use super::{LARGE_TABLE_BUFFER_BYTES, LEVEL_ZERO_FILES, RocksBackend};
use crate::platform::tokio::runtime::{Handle, RuntimeFlavor};
use crate::platform::tokio::task::block_in_place;
use crate::raft::upkeep::space::SpaceWaiter;

/// First pause between two probes of a RocksDB that found its disk full.
const SPACE_PAUSE: Duration = Duration::from_millis(200);
/// Maximum pause between two such probes.
const MAX_SPACE_PAUSE: Duration = Duration::from_secs(5);
/// How often to check for disk space. RocksDB checks every five seconds; if it has not recovered between two checks
/// that both found space, this instance of the state ends and another one is opened.
const ROOM_LOOK_EVERY: Duration = Duration::from_secs(10);
/// Free space at which RocksDB is expected to recover. It needs the size of its largest buffer.
const ROOM_BYTES: u64 = 2 * LARGE_TABLE_BUFFER_BYTES as u64;

/// First pause between two attempts of a write that is held up.
const STALL_PAUSE: Duration = Duration::from_micros(100);
/// Maximum pause between two such attempts.
const MAX_STALL_PAUSE: Duration = Duration::from_millis(10);
/// A write that is held up for longer logs a warning.
const LONG_STALL: Duration = Duration::from_secs(5);

/// The conditions that a writer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Waits until the write succeeds, however long that takes.
    Anything,
    /// Waits up to `LONG_STALL` for RocksDB to flush and compact earlier writes, but not for space.
    Turn,
}

/// Why a write failed.
pub(super) enum WriteFailure {
    NoSpace(Error),
    /// RocksDB must flush or compact earlier writes first.
    HeldUp,
    Failed(Error),
}

impl From<Error> for WriteFailure {
    fn from(error: Error) -> Self {
        match Fault::of(error.as_ref()) {
            Fault::NoSpace => WriteFailure::NoSpace(error),
            Fault::HeldUp => WriteFailure::HeldUp,
            Fault::SyncFailed | Fault::Damage | Fault::Other => WriteFailure::Failed(error),
        }
    }
}

impl RocksBackend {
    /// Runs `write`, and retries it while there is no space or RocksDB holds it up.
    ///
    /// # Errors
    /// Any other failure of `write`, after [`handle_error`](super::handle_error). Lack of space and a hold-up are errors
    /// too when `wait` does not cover them, when waits are cancelled, and when RocksDB does not recover though there
    /// is space.
    pub(super) fn write_when_possible<T>(
        &self,
        wait: WaitFor,
        write: impl Fn() -> Result<T, WriteFailure>,
    ) -> Result<T, String> {
        let mut pause = SPACE_PAUSE;
        let mut stall = None;
        // The claim on the reserve, from the first lack of space until the write is done.
        let mut reserve = None;
        loop {
            match write() {
                Ok(done) => return Ok(done),
                Err(WriteFailure::NoSpace(error)) => {
                    if wait != WaitFor::Anything {
                        return Err(self.handle_error(&error));
                    }
                    self.give_up_reserve(&mut reserve, &error);
                    if !self.recovers(&error, pause) {
                        return Err(self.handle_error(&error));
                    }
                    pause = MAX_SPACE_PAUSE.min(2 * pause);
                    stall = None;
                }
                Err(WriteFailure::HeldUp) => {
                    let stall = stall.get_or_insert_with(|| Stall::new(self.background_errors()));
                    self.wait_for_turn(stall, wait, &mut reserve)?;
                }
                Err(WriteFailure::Failed(error)) => return Err(self.handle_error(&error)),
            }
        }
    }

    /// Does the same as [`RocksBackend::write_when_possible`], for flushes. RocksDB itself would hold a flush up until
    /// compactions are not far behind, so this waits for that outside.
    pub(super) fn flush_when_possible<T>(
        &self,
        wait: WaitFor,
        flush: impl Fn() -> Result<T, Error>,
    ) -> Result<T, String> {
        self.write_when_possible(wait, || {
            self.probe()?;
            if self.is_far_behind()? { Err(WriteFailure::HeldUp) } else { Ok(flush()?) }
        })
    }

    fn is_far_behind(&self) -> Result<bool, Error> {
        for table in Table::ALL {
            let name = rocksdb::properties::num_files_at_level(0);
            let files = self.db.property_value_cf(self.family(table), &name)?;
            if files.and_then(|files| files.parse().ok()).is_some_and(|files: i32| files + 1 >= LEVEL_ZERO_FILES) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Frees the reserve for RocksDB and keeps it empty, unless that was done before.
    fn give_up_reserve<'a>(&'a self, reserve: &mut Option<SpaceWaiter<'a>>, error: &dyn std::fmt::Display) {
        if reserve.is_none() {
            *reserve = Some(self.space.register_waiter());
            self.space.report_full(error);
        }
    }

    /// Waits until RocksDB recovers from a lack of space; false when it does not, or waits are cancelled.
    fn recovers(&self, error: &Error, pause: Duration) -> bool {
        // RocksDB never recovers from a full quota by itself, so one check that finds space is enough.
        let (mut looked, mut had_room) = (Instant::now(), fault::is_quota(error.as_ref()));
        let is_given_up = || self.waits.is_cancelled() || self.space.is_closing();
        while !is_given_up() {
            let began = Instant::now();
            while began.elapsed() < pause && !is_given_up() {
                rest(SPACE_PAUSE);
            }
            if !matches!(self.probe().map_err(WriteFailure::from), Err(WriteFailure::NoSpace(_))) {
                return true;
            }
            if looked.elapsed() < ROOM_LOOK_EVERY {
                continue;
            }
            let has_room = self.space.has_room(ROOM_BYTES);
            if had_room && has_room {
                tracing::warn!(%error, "there is space, but RocksDB does not recover; the state must be reopened");
                return false;
            }
            (looked, had_room) = (Instant::now(), has_room);
        }
        false
    }

    /// Waits for a short pause because RocksDB is behind with its flushes and compactions.
    fn wait_for_turn<'a>(
        &'a self,
        stall: &mut Stall,
        wait: WaitFor,
        reserve: &mut Option<SpaceWaiter<'a>>,
    ) -> Result<(), String> {
        const BEHIND: &str = "RocksDB is behind with its work";
        if self.waits.is_cancelled() {
            return Err(BEHIND.to_owned());
        }
        rest(stall.pause);
        stall.pause = MAX_STALL_PAUSE.min(2 * stall.pause);
        if stall.began.elapsed() < LONG_STALL {
            return Ok(());
        }
        if !std::mem::replace(&mut stall.is_logged, true) {
            tracing::warn!("{BEHIND}; the state waits");
        }
        // A compaction that finds no space does not fail writes: it only holds them up until there is space.
        if self.background_errors() > stall.errors {
            self.give_up_reserve(reserve, &BEHIND);
        }
        if wait == WaitFor::Turn { Err(BEHIND.to_owned()) } else { Ok(()) }
    }

    /// Writes an empty batch. RocksDB returns errors in the background to the next writer.
    pub(super) fn probe(&self) -> Result<(), Error> {
        self.db.write_opt(WriteBatch::default(), &write_options())
    }
}

/// A write that is held up.
struct Stall {
    began: Instant,
    /// Pause before the next attempt.
    pause: Duration,
    /// Number of errors in the background when it began.
    errors: u64,
    is_logged: bool,
}

impl Stall {
    fn new(errors: u64) -> Self {
        Stall { began: Instant::now(), pause: STALL_PAUSE, errors, is_logged: false }
    }
}

/// Sleeps. A long sleep on a worker thread of the runtime lets another thread run its tasks.
fn rest(pause: Duration) {
    let is_worker = || Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if pause >= MAX_STALL_PAUSE && is_worker() {
        block_in_place(|| sleep(pause));
    } else {
        sleep(pause);
    }
}

/// Returns options without RocksDB's own log, since the Raft log takes its place, and without waiting inside RocksDB.
pub(super) fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_no_slowdown(true);
    options
}
