//! Sets the commit and date that the binary reports. A build without git, for example from an archive, has neither.
//!
//! The date is `SOURCE_DATE_EPOCH` if set, and otherwise the commit's date, so that builds are reproducible.

use std::path::Path;
use std::process::Command;

fn main() {
    // A change to any of these recompiles this crate anyway.
    for path in ["../../crates", "../../Cargo.toml", "../../Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    for name in ["HEAD", "logs/HEAD"] {
        // A worktree stores these files in another place than a clone.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "HEAD"]).filter(|_| is_repository());
    let state = match &commit {
        None => "archive",
        Some(_) => match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changes) if changes.is_empty() => "clean",
            _ => "dirty",
        },
    };
    let date = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .filter(|date| date.parse::<i64>().is_ok())
        .or_else(|| commit.as_ref().and_then(|_| git(&["show", "--no-patch", "--format=%ct", "HEAD"])))
        .unwrap_or_else(|| "0".to_owned());
    println!("cargo:rustc-env=QUORATE_COMMIT={}", commit.unwrap_or_default());
    println!("cargo:rustc-env=QUORATE_TREE_STATE={state}");
    println!("cargo:rustc-env=QUORATE_BUILD_SECONDS={date}");
}

/// Returns whether the sources are a repository of their own, rather than an archive unpacked inside another
/// repository.
fn is_repository() -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok();
    let top = git(&["rev-parse", "--show-toplevel"]).and_then(|path| Path::new(&path).canonicalize().ok());
    root.is_some() && root == top
}

/// Returns the output of git; `None` when git fails or is not installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
