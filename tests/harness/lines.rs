//! Output of running commands, line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::retry::Deadline;

/// Standard output of a running command, line by line. Dropping this kills the command.
pub struct Lines {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    /// # Panics
    /// When the command cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Lines {
        Lines::start_with(command, Stdio::null())
    }

    /// As [`Lines::start`], with a standard input for [`Lines::write`].
    ///
    /// # Panics
    /// When the command cannot be started.
    #[must_use]
    pub fn start_with_input(command: &mut Command) -> Lines {
        Lines::start_with(command, Stdio::piped())
    }

    fn start_with(command: &mut Command, stdin: Stdio) -> Lines {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("a piped standard output"));
        let (sender, lines) = mpsc::channel();
        // The thread ends with the command or with the receiver.
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Lines { child, lines, seen: Vec::new() }
    }

    /// Returns the next line that `wanted` accepts, and skips earlier lines.
    ///
    /// # Panics
    /// With all printed lines, when the command ends or the default [`Deadline`] passes first.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Deadline::default().0;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.seen.push(line.clone());
                    if found {
                        return line;
                    }
                }
                Err(error) => panic!("{what}: {error} after {:#?}", self.seen),
            }
        }
    }

    /// Writes to the command's standard input.
    ///
    /// # Panics
    /// When the command has none, or has closed it.
    pub fn write(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a standard input");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("the command reads");
    }

    /// Sends the command a signal.
    ///
    /// # Panics
    /// When the command has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).unwrap_or_else(|error| panic!("cannot send {signal}: {error}"));
    }

    /// Waits up to the default [`Deadline`] for the command to end. Returns whether it ended with success.
    pub fn ended(&mut self) -> bool {
        let deadline = Instant::now() + Deadline::default().0;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().is_ok_and(|status| status.success()),
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Both calls may fail if the command has ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
