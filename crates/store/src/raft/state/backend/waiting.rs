//! Waits for space, and for RocksDB's own work, outside of RocksDB.
//!
//! RocksDB goes on by itself some seconds after a full disk has space again: it flushes what it has in memory, and takes
//! writes again. Two things keep it from that for ever (as of 11.8): a write that it holds up meanwhile, since the flush
//! waits for its turn behind that write and the write waits for the flush; and flushes that are asked for again and again,
//! since it waits until none is on its way. So no write waits within RocksDB, and while it has an error nothing is asked of
//! it but whether it goes on.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rocksdb::{DB, Error, WriteBatch, WriteOptions};

use super::super::fault::Fault;
use super::RocksBackend;

/// Between two looks at a RocksDB that found its disk full.
const SPACE_PAUSE: Duration = Duration::from_millis(200);
/// If RocksDB does not go on although there is space, for so long, this instance of the state ends and another is opened.
/// It looks every five seconds.
const SPACE_PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts of a write that is held up: at first, and at most.
const STALL_PAUSE: Duration = Duration::from_micros(100);
const MAX_STALL_PAUSE: Duration = Duration::from_millis(10);

impl RocksBackend {
    /// Does something that writes, and waits as long as there is no space for it or too much is to be flushed before.
    ///
    /// # Errors
    /// Any other; and `NoSpace` when nobody [waits](RocksBackend::stop_waiting) any more, or there is space and RocksDB does
    /// not go on.
    pub(super) fn when_it_can<T>(&self, write: impl Fn(&DB) -> Result<T, Error>) -> Result<T, Error> {
        let mut pause = STALL_PAUSE;
        loop {
            match write(&self.db) {
                Err(error) if fault(&error) == Fault::NoSpace => self.wait_for_space(error)?,
                Err(error) if fault(&error) == Fault::HeldUp => {
                    sleep(pause);
                    pause = MAX_STALL_PAUSE.min(2 * pause);
                }
                done => return done,
            }
        }
    }

    /// Waits until RocksDB goes on after an error.
    fn wait_for_space(&self, error: Error) -> Result<(), Error> {
        self.space.exhausted(&error);
        let mut has_space_since = None;
        while !self.is_hurried() {
            sleep(SPACE_PAUSE);
            match self.probe() {
                Err(error) if fault(&error) == Fault::NoSpace => {}
                Err(error) if fault(&error) != Fault::HeldUp => return Err(error),
                _ => return Ok(()),
            }
            if self.space.is_full() {
                has_space_since = None;
            } else if has_space_since.get_or_insert_with(Instant::now).elapsed() > SPACE_PATIENCE {
                tracing::warn!(%error, "there is space, but RocksDB does not go on; it is to be opened anew");
                break;
            }
        }
        Err(error)
    }

    /// Writes nothing. Who writes is told of errors in the background.
    pub(super) fn probe(&self) -> Result<(), Error> {
        self.db.write_opt(WriteBatch::default(), &write_options())
    }

    fn is_hurried(&self) -> bool {
        self.is_hurried.load(Ordering::Relaxed) || self.space.is_closing()
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
