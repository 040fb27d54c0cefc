//! Waits for space, and for RocksDB's own work, outside of RocksDB.
//!
//! RocksDB goes on by itself some seconds after a full disk has space again: it flushes what it has in memory, and takes
//! writes again. Two things keep it from that for ever (as of 11.8): a write that it holds up meanwhile, since the flush
//! waits for its turn behind that write and the write waits for the flush; and flushes that are asked for again and again,
//! since it waits until none is on its way. So no write waits within RocksDB, and while it has an error nothing is asked of
//! it but whether it goes on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_mvcc::Table;
use rocksdb::{DB, Error, WriteBatch, WriteOptions};

use super::super::fault::Fault;
use super::{LEVEL_ZERO_FILES, RocksBackend};
use crate::platform::tokio::runtime::{Handle, RuntimeFlavor};
use crate::platform::tokio::task::block_in_place;

/// Between two looks at a RocksDB that found its disk full: at first, and at most.
const SPACE_PAUSE: Duration = Duration::from_millis(200);
const MAX_SPACE_PAUSE: Duration = Duration::from_secs(5);
/// How often it is asked whether there is space. If there was twice and RocksDB, which looks every five seconds, did not go
/// on between, this instance of the state ends and another is opened.
const SPACE_LOOK_EVERY: Duration = Duration::from_secs(10);

/// Between two attempts of a write that is held up: at first, and at most.
const STALL_PAUSE: Duration = Duration::from_micros(100);
const MAX_STALL_PAUSE: Duration = Duration::from_millis(10);
/// Who is held up for longer says so.
const LONG_STALL: Duration = Duration::from_secs(5);

/// What one who writes waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Space as well.
    Anything,
    /// That what was written before is flushed and compacted.
    Turn,
}

impl RocksBackend {
    /// Does something that writes, and waits until it can.
    ///
    /// # Errors
    /// Any other; and that there is no space when nobody waits for it, or there is some and RocksDB does not go on.
    pub(super) fn when_it_can<T>(&self, wait: WaitFor, write: impl Fn(&DB) -> Result<T, Error>) -> Result<T, Error> {
        let mut space_pause = SPACE_PAUSE;
        let mut stall = Stall::new();
        loop {
            match write(&self.db) {
                Err(error) if fault(&error) == Fault::NoSpace && wait == WaitFor::Anything => {
                    self.wait_for_space(error, space_pause)?;
                    space_pause = MAX_SPACE_PAUSE.min(2 * space_pause);
                }
                Err(error) if fault(&error) == Fault::HeldUp && !self.waits.is_cancelled() => {
                    let lasts_long = stall.rest();
                    // A compaction that finds no space only puts writes off, until there is some.
                    if lasts_long && self.background_errors() > 0 {
                        self.space.exhausted(&error);
                    }
                    if lasts_long && wait == WaitFor::Turn {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// As [`RocksBackend::when_it_can`], for what flushes: RocksDB itself waits before it does until compactions are not
    /// too far behind.
    pub(super) fn when_it_can_flush<T>(
        &self,
        wait: WaitFor,
        flush: impl Fn(&DB) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut stall = Stall::new();
        while self.is_far_behind()? && !self.waits.is_cancelled() {
            stall.rest();
        }
        self.when_it_can(wait, flush)
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

    /// Waits until RocksDB goes on after an error. The reserve is left to it meanwhile.
    fn wait_for_space(&self, error: Error, pause: Duration) -> Result<(), Error> {
        let _waiting = self.space.wait();
        self.space.exhausted(&error);
        let (mut looked, mut had_room) = (Instant::now(), false);
        while !self.waits.is_cancelled() && !self.space.is_closing() {
            rest(pause);
            match self.probe() {
                Err(error) if fault(&error) == Fault::NoSpace => {}
                Err(error) if fault(&error) != Fault::HeldUp => return Err(error),
                _ => return Ok(()),
            }
            if looked.elapsed() < SPACE_LOOK_EVERY {
                continue;
            }
            let has_room = self.space.has_room();
            if had_room && has_room {
                tracing::warn!(%error, "there is space, but RocksDB does not go on; it is to be opened anew");
                break;
            }
            (looked, had_room) = (Instant::now(), has_room);
        }
        Err(error)
    }

    /// Writes nothing. Who writes is told of errors in the background.
    pub(super) fn probe(&self) -> Result<(), Error> {
        self.db.write_opt(WriteBatch::default(), &write_options())
    }
}

/// The time for which somebody is held up.
struct Stall {
    began: Instant,
    pause: Duration,
    is_told: bool,
}

impl Stall {
    fn new() -> Self {
        Stall { began: Instant::now(), pause: STALL_PAUSE, is_told: false }
    }

    /// Rests, longer each time; whether it has lasted long.
    fn rest(&mut self) -> bool {
        rest(self.pause);
        self.pause = MAX_STALL_PAUSE.min(2 * self.pause);
        let lasts_long = self.began.elapsed() > LONG_STALL;
        if lasts_long && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!("RocksDB is behind with its work; the state waits");
        }
        lasts_long
    }
}

/// Sleeps. If it is for long, another thread goes on with the other tasks of this one.
fn rest(pause: Duration) {
    let is_worker = || Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if pause >= MAX_STALL_PAUSE && is_worker() {
        block_in_place(|| sleep(pause));
    } else {
        sleep(pause);
    }
}

fn fault(error: &Error) -> Fault {
    Fault::of(error.as_ref())
}

/// Nothing goes to a log of RocksDB's, which Raft's is for, and nothing waits.
pub(super) fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_no_slowdown(true);
    options
}
