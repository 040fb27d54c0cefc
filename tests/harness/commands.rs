//! Running command-line clients.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::retry::eventually;

/// Outcome and output of a command.
#[derive(Clone, Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns the standard output of a command that must succeed.
    ///
    /// # Panics
    /// With both outputs, when the command failed.
    pub fn ok(self) -> String {
        assert!(self.success, "the command failed\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns the standard output.
    ///
    /// # Errors
    /// Both outputs, when the command failed.
    pub fn result(self) -> Result<String, Output> {
        if self.success { Ok(self.stdout) } else { Err(self) }
    }
}

/// Runs a command to its end, with `stdin` as its input.
///
/// # Panics
/// When the command cannot be started.
#[must_use]
pub fn run(command: &mut Command, stdin: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut input = child.stdin.take().expect("a piped standard input");
    // A command that does not read its input may close it early, which is no error.
    input.write_all(stdin.as_bytes()).ok();
    drop(input);
    let output = child.wait_with_output().expect("the command's output");
    Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running command, and the lines that it has printed so far. Dropping this kills it.
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("a piped standard output"));
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Running { child, lines }
    }

    /// Writes to the command's standard input.
    ///
    /// # Panics
    /// When the command does not read its input.
    pub fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("a piped standard input");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("the command reads its input");
    }

    /// Lines that the command has printed.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the command has printed these lines in this order, possibly with others between them.
    ///
    /// # Panics
    /// With the printed lines, when the deadline passes.
    pub fn wait_for(&self, wanted: &[&str]) {
        eventually("lines of a running command", || {
            let lines = self.lines();
            let mut printed = lines.iter();
            if wanted.iter().all(|want| printed.any(|line| line == want)) { Ok(()) } else { Err(lines) }
        });
    }

    /// Waits until the command has printed a line that contains `part`, and returns the line.
    ///
    /// # Panics
    /// With the printed lines, when the deadline passes.
    pub fn wait_for_part(&self, part: &str) -> String {
        eventually("a line of a running command", || {
            let lines = self.lines();
            lines.iter().find(|line| line.contains(part)).cloned().ok_or(lines)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The command may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
