//! Mount namespaces. The harness has one of its own, so that its disks are gone with it. Docker workers run outside,
//! because the engine does not see what an agent mounts in a private namespace.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, absolute};
use std::sync::OnceLock;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::process::Command;

/// The namespace that the harness was started in.
static OUTSIDE: OnceLock<File> = OnceLock::new();

/// Gives this process a mount namespace of its own. Must be called before other threads exist.
///
/// # Errors
/// When this process may not make one.
pub fn isolate() -> anyhow::Result<()> {
    let outside = File::open("/proc/self/ns/mnt")?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    OUTSIDE.set(outside).ok().context("the mounts are isolated already")?;
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?)
}

/// Returns a command that runs `program` in the namespace that the harness was started in.
///
/// # Errors
/// When the current directory is gone.
pub fn outside(program: &Path) -> anyhow::Result<Command> {
    // The other namespace has no current directory.
    let program = absolute(program)?;
    let Some(outside) = OUTSIDE.get() else { return Ok(Command::new(program)) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/fd/{}", std::process::id(), outside.as_raw_fd())).arg(program);
    Ok(command)
}
