//! Checks of the functions that the scripts share.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SYMBOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/symbols.sh");

fn bash(directory: &Path, line: &str) -> Output {
    let script = format!("set -euo pipefail; . {SYMBOLS}; {line}");
    Command::new("bash").args(["-c", &script]).current_dir(directory).output().expect("bash runs")
}

#[test]
fn symbols_are_split_from_a_binary_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path();
    fs::write(dir.join("tool.c"), "int main(void) { return 0; }\n").expect("a source file");
    let compiled = Command::new("cc").args(["-g", "tool.c", "-o", "tool"]).current_dir(dir).output().expect("cc runs");
    assert!(compiled.status.success(), "{compiled:?}");
    let files = || ["tool", "tool.debug"].map(|name| fs::read(dir.join(name)).expect("a file"));
    let whole = fs::read(dir.join("tool")).expect("a binary").len();
    let split = bash(dir, "split_symbols ./tool");
    assert!(split.status.success(), "{split:?}");
    let first = files();
    assert!(first[0].len() < whole && !first[1].is_empty());
    // The second build finds the binary as the first one left it.
    let again = bash(dir, "split_symbols ./tool");
    assert!(again.status.success(), "{again:?}");
    assert!(files() == first, "the symbols were overwritten");
    assert!(Command::new(dir.join("tool")).status().expect("it runs").success());

    fs::remove_file(dir.join("tool.debug")).expect("removed");
    let refused = bash(dir, "split_symbols ./tool");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("remove ./tool and build again"), "{refused:?}");
}
