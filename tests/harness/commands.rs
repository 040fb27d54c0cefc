//! Running command-line clients.

use std::io::Write;
use std::process::{Command, Stdio};

/// What a command printed, and whether it succeeded.
#[derive(Clone, Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that must succeed.
    ///
    /// # Panics
    /// With everything it printed, when it failed.
    pub fn ok(self) -> String {
        assert!(self.success, "the command failed\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The standard output, or both outputs when it failed.
    ///
    /// # Errors
    /// When the command failed.
    pub fn result(self) -> Result<String, Output> {
        if self.success { Ok(self.stdout) } else { Err(self) }
    }
}

/// Runs a command to its end, with `stdin` as its input.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command, stdin: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut input = child.stdin.take().expect("a piped standard input");
    // A command that does not read its input closes it early, which is its right.
    input.write_all(stdin.as_bytes()).ok();
    drop(input);
    let output = child.wait_with_output().expect("the command's output");
    Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
