//! Failpoints: points in a member's work that can be observed from outside, on its disk and on the network, and the
//! action to trigger there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::world::{Action, Failpoint, MemberIndex, Phase, Point};

/// Operation of a member on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Write,
    Sync,
    Rename,
}

/// Result of passing a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    pub pause: Duration,
    /// The process was killed.
    pub is_dead: bool,
}

/// The failpoint of each member, if it has one.
#[derive(Debug)]
pub struct Failpoints {
    slots: Vec<Mutex<Option<Armed>>>,
    /// The action that killed the process of each member. It is kept because the end may be noticed after the failpoint
    /// is disarmed.
    killed: Vec<Mutex<Option<Action>>>,
    /// Whether any failpoint is armed; without one, operations do not take a lock.
    is_any: AtomicBool,
}

#[derive(Debug)]
struct Armed {
    failpoint: Failpoint,
    /// The process that the failpoint applies to; without one it does nothing.
    process: Option<Pid>,
    passed: u64,
}

impl Failpoints {
    #[must_use]
    pub fn new(members: usize) -> Self {
        let (slots, killed) = (0..members).map(|_| (Mutex::new(None), Mutex::new(None))).unzip();
        Failpoints { slots, killed, is_any: AtomicBool::new(false) }
    }

    /// Arms a failpoint for the process of a member. The count of passes continues when a new process gets the same
    /// failpoint.
    pub fn arm(&self, member: MemberIndex, failpoint: Failpoint, process: u32) {
        let process = i32::try_from(process).ok().map(Pid::from_raw);
        let mut slot = self.slots[member].lock();
        let passed = slot.as_ref().filter(|armed| armed.failpoint == failpoint).map_or(0, |armed| armed.passed);
        *slot = Some(Armed { failpoint, process, passed });
        self.is_any.store(true, Ordering::Relaxed);
    }

    /// Forgets a dead process, whose pid may be reused. Returns the action that killed it, if a failpoint did.
    pub fn forget_process(&self, member: MemberIndex) -> Option<Action> {
        if let Some(armed) = self.slots[member].lock().as_mut() {
            armed.process = None;
        }
        self.killed[member].lock().take()
    }

    /// Disarms the failpoint. Returns how often it was passed.
    pub fn disarm(&self, member: MemberIndex) -> u64 {
        let passed = self.slots[member].lock().take().map_or(0, |armed| armed.passed);
        self.is_any.store(self.slots.iter().any(|slot| slot.lock().is_some()), Ordering::Relaxed);
        passed
    }

    /// Passes the point of an operation of a member on its disk, if it is one.
    #[must_use]
    pub fn pass_disk(&self, member: MemberIndex, operation: Operation, path: &Path, phase: Phase) -> Passing {
        if !self.is_any.load(Ordering::Relaxed) {
            return Passing::default();
        }
        point(operation, path).map_or_else(Passing::default, |point| self.pass(member, point, phase))
    }

    /// Passes a point of a member.
    #[must_use]
    pub fn pass(&self, member: MemberIndex, point: Point, phase: Phase) -> Passing {
        let mut passing = Passing::default();
        if !self.is_any.load(Ordering::Relaxed) {
            return passing;
        }
        let mut slot = self.slots[member].lock();
        let is_here = |armed: &&mut Armed| (armed.failpoint.point, armed.failpoint.phase) == (point, phase);
        let Some(armed) = slot.as_mut().filter(is_here) else { return passing };
        let Some(process) = armed.process else { return passing };
        match armed.failpoint.action {
            Action::Sleep { ms } => passing.pause = Duration::from_millis(ms),
            // Operations of the process's other threads are discarded from now on.
            action @ (Action::Die | Action::LosePower) => {
                passing.is_dead = kill(process, Signal::SIGKILL).is_ok();
                if passing.is_dead {
                    *self.killed[member].lock() = Some(action);
                }
            }
        }
        armed.passed += 1;
        passing
    }
}

/// The point of an operation on a file of the data directory.
fn point(operation: Operation, path: &Path) -> Option<Point> {
    let path = path.strip_prefix("store").ok()?;
    let name = path.file_name()?.to_str()?;
    let is_log = path.starts_with("log") && name.starts_with("segment-");
    let is_state = path.starts_with("state");
    let is_snapshot = is_state && path.iter().any(|part| part.to_string_lossy().starts_with("incoming-"));
    let is_database = is_state && path.iter().any(|part| part.to_string_lossy().starts_with("generation-"));
    match operation {
        Operation::Write if is_log => Some(Point::LogWrite),
        Operation::Sync if is_log => Some(Point::LogSync),
        Operation::Write | Operation::Sync if is_snapshot => Some(Point::SnapshotReceive),
        // LOG is RocksDB's own log of messages, which holds no data.
        Operation::Write if is_database && !name.starts_with("LOG") => Some(Point::StateWrite),
        Operation::Sync if is_database => Some(Point::StateSync),
        // The snapshot is renamed to its place, and so is the pointer to it.
        Operation::Rename if is_state && (name == "CURRENT" && !is_database || name.starts_with("generation-")) => {
            Some(Point::SnapshotInstall)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_derived_from_file_names() {
        let at = |operation, path: &str| point(operation, Path::new(path));
        assert_eq!(at(Operation::Write, "store/log/segment-0000000000000001.log"), Some(Point::LogWrite));
        assert_eq!(at(Operation::Sync, "store/log/segment-0000000000000001.log"), Some(Point::LogSync));
        assert_eq!(at(Operation::Write, "store/log/spare-0000000000000001"), None);
        assert_eq!(at(Operation::Write, "store/state/generation-1/000012.sst"), Some(Point::StateWrite));
        assert_eq!(at(Operation::Write, "store/state/generation-1/LOG"), None);
        assert_eq!(at(Operation::Sync, "store/state/generation-1/MANIFEST-000004"), Some(Point::StateSync));
        assert_eq!(at(Operation::Rename, "store/state/generation-1/CURRENT"), None);
        assert_eq!(at(Operation::Rename, "store/state/CURRENT"), Some(Point::SnapshotInstall));
        assert_eq!(at(Operation::Rename, "store/state/generation-2"), Some(Point::SnapshotInstall));
        assert_eq!(at(Operation::Write, "store/state/snapshots/incoming-5/a.sst"), Some(Point::SnapshotReceive));
        assert_eq!(at(Operation::Write, "elsewhere"), None);
    }

    #[test]
    fn only_armed_failpoints_trigger_and_only_for_a_live_process() {
        let failpoints = Failpoints::new(2);
        assert_eq!(failpoints.pass(0, Point::Send, Phase::Before), Passing::default());
        let sleep = Failpoint { point: Point::Send, phase: Phase::After, action: Action::Sleep { ms: 7 } };
        failpoints.arm(1, sleep, 0);
        assert_eq!(failpoints.pass(0, Point::Send, Phase::After), Passing::default());
        assert_eq!(failpoints.pass(1, Point::Send, Phase::Before), Passing::default());
        assert_eq!(failpoints.pass(1, Point::Send, Phase::After).pause, Duration::from_millis(7));
        assert_eq!(failpoints.disarm(1), 1);
        assert_eq!(failpoints.disarm(1), 0);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep");
        failpoints.arm(0, Failpoint { action: Action::Die, ..sleep }, child.id());
        assert!(failpoints.pass(0, Point::Send, Phase::After).is_dead);
        assert_eq!(failpoints.forget_process(0), Some(Action::Die));
        assert_eq!(failpoints.forget_process(0), None);
        assert!(!child.wait().expect("it ends").success());
        assert_eq!(failpoints.pass(0, Point::Send, Phase::After), Passing::default());
        assert_eq!(failpoints.disarm(0), 1);
    }
}
