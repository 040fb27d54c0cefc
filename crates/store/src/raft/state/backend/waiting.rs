//! Waits for space, and for RocksDB's own work, outside of RocksDB.
//!
//! RocksDB goes on by itself some seconds after a full disk has space again: it flushes what it has in memory, and takes
//! writes again. Two things keep it from that for ever (as of 11.8): a write that it holds up meanwhile, since the flush
//! waits for its turn behind that write and the write waits for the flush; and flushes that are asked for again and again,
//! since it waits until none is on its way. So no write waits within RocksDB, nor a flush for compactions, and of one that
//! has an error nothing is asked but whether it goes on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_mvcc::Table;
use rocksdb::{Error, WriteBatch, WriteOptions};

use super::super::fault::{self, Fault};
use super::{LARGE_TABLE_BUFFER_BYTES, LEVEL_ZERO_FILES, RocksBackend};
use crate::platform::tokio::runtime::{Handle, RuntimeFlavor};
use crate::platform::tokio::task::block_in_place;
use crate::raft::space::Waiting;

/// Between two looks at a RocksDB that found its disk full: at first, and at most.
const SPACE_PAUSE: Duration = Duration::from_millis(200);
const MAX_SPACE_PAUSE: Duration = Duration::from_secs(5);
/// How often it is asked whether there is space. If there was twice and RocksDB, which looks every five seconds, did not go
/// on between, this instance of the state ends and another is opened.
const ROOM_LOOK_EVERY: Duration = Duration::from_secs(10);
/// It goes on when there is as much as the largest buffer has.
const ROOM_BYTES: u64 = 2 * LARGE_TABLE_BUFFER_BYTES as u64;

/// Between two attempts of one who is held up: at first, and at most.
const STALL_PAUSE: Duration = Duration::from_micros(100);
const MAX_STALL_PAUSE: Duration = Duration::from_millis(10);
/// Who is held up for longer says so.
const LONG_STALL: Duration = Duration::from_secs(5);

/// What one who writes waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Until it can, however long that takes.
    Anything,
    /// That what was written before is flushed and compacted, for a while. Not for space.
    Turn,
}

/// Why something was not written.
pub(super) enum Hindrance {
    NoSpace(Error),
    /// RocksDB is behind with its work.
    HeldUp,
    Failed(Error),
}

impl From<Error> for Hindrance {
    fn from(error: Error) -> Self {
        match Fault::of(error.as_ref()) {
            Fault::NoSpace => Hindrance::NoSpace(error),
            Fault::HeldUp => Hindrance::HeldUp,
            Fault::SyncFailed | Fault::Damage | Fault::Other => Hindrance::Failed(error),
        }
    }
}

impl RocksBackend {
    /// Does something that writes, and waits until it can.
    ///
    /// # Errors
    /// What else it failed with, concluded; and that there is no space or it is held up, when nobody waits for that (any
    /// more), or RocksDB does not go on though there is space.
    pub(super) fn when_it_can<T>(&self, wait: WaitFor, write: impl Fn() -> Result<T, Hindrance>) -> Result<T, String> {
        let mut pause = SPACE_PAUSE;
        let mut stall = None;
        // From the first time that there is no space until it is done.
        let mut reserve = None;
        loop {
            match write() {
                Ok(done) => return Ok(done),
                Err(Hindrance::NoSpace(error)) => {
                    if wait != WaitFor::Anything {
                        return Err(self.conclude(&error));
                    }
                    self.give_up_reserve(&mut reserve, &error);
                    if !self.goes_on(&error, pause) {
                        return Err(self.conclude(&error));
                    }
                    pause = MAX_SPACE_PAUSE.min(2 * pause);
                    stall = None;
                }
                Err(Hindrance::HeldUp) => {
                    let stall = stall.get_or_insert_with(|| Stall::new(self.background_errors()));
                    self.wait_for_turn(stall, wait, &mut reserve)?;
                }
                Err(Hindrance::Failed(error)) => return Err(self.conclude(&error)),
            }
        }
    }

    /// As [`RocksBackend::when_it_can`], for what flushes: RocksDB itself would wait before it does, until compactions are
    /// not far behind.
    pub(super) fn when_it_can_flush<T>(
        &self,
        wait: WaitFor,
        flush: impl Fn() -> Result<T, Error>,
    ) -> Result<T, String> {
        self.when_it_can(wait, || {
            self.probe()?;
            if self.is_far_behind()? { Err(Hindrance::HeldUp) } else { Ok(flush()?) }
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

    /// Leaves the reserve to RocksDB, once.
    fn give_up_reserve<'a>(&'a self, reserve: &mut Option<Waiting<'a>>, error: &dyn std::fmt::Display) {
        if reserve.is_none() {
            *reserve = Some(self.space.wait());
            self.space.exhausted(error);
        }
    }

    /// Waits until RocksDB goes on after it found no space; false when it does not, or nobody waits any more.
    fn goes_on(&self, error: &Error, pause: Duration) -> bool {
        // From a quota it does not recover.
        let (mut looked, mut had_room) = (Instant::now(), fault::is_quota(error.as_ref()));
        let is_given_up = || self.waits.is_cancelled() || self.space.is_closing();
        while !is_given_up() {
            let began = Instant::now();
            while began.elapsed() < pause && !is_given_up() {
                rest(SPACE_PAUSE);
            }
            if !matches!(self.probe().map_err(Hindrance::from), Err(Hindrance::NoSpace(_))) {
                return true;
            }
            if looked.elapsed() < ROOM_LOOK_EVERY {
                continue;
            }
            let has_room = self.space.has_room(ROOM_BYTES);
            if had_room && has_room {
                tracing::warn!(%error, "there is space, but RocksDB does not go on; it is to be opened anew");
                return false;
            }
            (looked, had_room) = (Instant::now(), has_room);
        }
        false
    }

    /// Waits a little because RocksDB is behind.
    fn wait_for_turn<'a>(
        &'a self,
        stall: &mut Stall,
        wait: WaitFor,
        reserve: &mut Option<Waiting<'a>>,
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
        if !std::mem::replace(&mut stall.is_told, true) {
            tracing::warn!("{BEHIND}; the state waits");
        }
        // A compaction that finds no space only puts writes off, until there is some.
        if self.background_errors() > stall.errors {
            self.give_up_reserve(reserve, &BEHIND);
        }
        if wait == WaitFor::Turn { Err(BEHIND.to_owned()) } else { Ok(()) }
    }

    /// Writes nothing. Who writes is told of errors in the background.
    pub(super) fn probe(&self) -> Result<(), Error> {
        self.db.write_opt(WriteBatch::default(), &write_options())
    }
}

/// The time for which somebody is held up.
struct Stall {
    began: Instant,
    /// Until the next attempt.
    pause: Duration,
    /// In the background, until it began.
    errors: u64,
    is_told: bool,
}

impl Stall {
    fn new(errors: u64) -> Self {
        Stall { began: Instant::now(), pause: STALL_PAUSE, errors, is_told: false }
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

/// Nothing goes to a log of RocksDB's, which Raft's is for, and nothing waits.
pub(super) fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_no_slowdown(true);
    options
}
