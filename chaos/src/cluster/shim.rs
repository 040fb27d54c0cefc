//! A small library that controls the clock, fsync and connections of a process. It is compiled here and loaded into the
//! process.
//!
//! It is written in C because it overrides C functions; a Rust library would need `unsafe`, which the workspace
//! forbids.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const SOURCE: &str = include_str!("shim.c");

/// The compiled library.
#[derive(Clone, Debug)]
pub struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Compiles the library into `directory`.
    ///
    /// # Errors
    /// When there is no C compiler, or it fails.
    pub fn build(directory: &Path) -> anyhow::Result<Shim> {
        let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = compiler.output().context("there is no C compiler `cc`")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Shim { library })
    }

    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }
}

/// Control file that one process's library reads; see `struct control` in `shim.c`.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    file: fs::File,
}

impl Control {
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: PathBuf) -> anyhow::Result<Control> {
        let file = fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let control = Control { path, file };
        control.set(0, 0, false)?;
        Ok(control)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, clock_offset_s: i64, sync_delay_ms: u64, sync_fails: bool) -> anyhow::Result<()> {
        let sync_delay_us = i64::try_from(sync_delay_ms * 1000)?;
        let fields = [clock_offset_s, sync_delay_us, i64::from(sync_fails)];
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_ne_bytes()).collect();
        self.file.write_all_at(&bytes, 0).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_process_is_moved() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Ok(shim) = Shim::build(dir.path()) else { return };
        let control = Control::create(dir.path().join("control")).expect("a control file");
        let seconds = || -> i64 {
            let mut date = Command::new("date");
            date.arg("+%s").env("LD_PRELOAD", shim.library()).env("CHAOS_CONTROL", control.path());
            let output = date.output().expect("date").stdout;
            String::from_utf8_lossy(&output).trim().parse().expect("a number")
        };
        let before = seconds();
        control.set(-7200, 0, false).expect("it is written");
        let moved = seconds();
        assert!((-7200..-7000).contains(&(moved - before)), "{before} {moved}");
        control.set(0, 0, true).expect("it is written");
        let mut sync = Command::new("sync");
        sync.arg(shim.library()).env("LD_PRELOAD", shim.library()).env("CHAOS_CONTROL", control.path());
        assert!(!sync.output().expect("sync").status.success(), "fsync must fail");
    }

    #[test]
    fn connections_are_redirected_to_the_given_port() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Ok(shim) = Shim::build(dir.path()) else { return };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let connects = |via: String| {
            let mut bash = Command::new("bash");
            bash.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/9"]).env("LD_PRELOAD", shim.library()).env("CHAOS_VIA", via);
            bash.output().expect("bash").status.success()
        };
        assert!(connects(format!("7=1,9={port}")));
        assert!(!connects(format!("7={port},8={port}")), "no process listens there");
    }
}
