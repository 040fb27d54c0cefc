//! Replays the checked-in inputs of every fuzz target, and the first inputs that its corpus grew from.

use std::fs;
use std::path::{Path, PathBuf};

/// Limits of a target's corpus in the repository; `scripts/fuzz` keeps to them.
const MAX_FILES: usize = 200;
const MAX_BYTES: usize = 256 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("an input"))).collect()
}

fn replay(target: &str) {
    let inputs = inputs(&folder().join(target));
    assert!(inputs.len() >= 10, "the corpus of {target} has {} inputs", inputs.len());
    let bytes: usize = inputs.iter().map(|(_, input)| input.len()).sum();
    assert!(inputs.len() <= MAX_FILES && bytes <= MAX_BYTES, "{target}: {} inputs, {bytes} bytes", inputs.len());
    run(target, &inputs);
}

fn run(target: &str, inputs: &[(PathBuf, Vec<u8>)]) {
    for (path, input) in inputs {
        let outcome = std::panic::catch_unwind(|| quorate_fuzz::run(target, input));
        assert!(outcome.is_ok(), "{}", path.display());
    }
}

#[test]
fn apply_keeps_its_properties() {
    replay("apply");
}

#[test]
fn cbor_keeps_its_properties() {
    replay("cbor");
}

#[test]
fn json_keeps_its_properties() {
    replay("json");
}

#[test]
fn patches_keep_their_properties() {
    replay("patches");
}

#[test]
fn protobuf_keeps_its_properties() {
    replay("protobuf");
}

#[test]
fn selectors_keep_their_properties() {
    replay("selectors");
}

#[test]
fn yaml_keeps_its_properties() {
    replay("yaml");
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let programs = fs::read_to_string(folder().join("../targets/Cargo.toml")).expect("the programs");
    for (target, _) in quorate_fuzz::TARGETS {
        assert!(folder().join(target).is_dir(), "{target} has no corpus");
        assert!(programs.contains(&format!("name = \"{target}\"")), "{target} has no program");
    }
    assert_eq!(inputs_of_all_targets(), quorate_fuzz::TARGETS.len());
}

fn inputs_of_all_targets() -> usize {
    fs::read_dir(folder()).expect("the corpora").count()
}

#[test]
fn the_first_inputs_keep_the_properties() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-seeds-{}", std::process::id()));
    quorate_fuzz::seeds::write(&scratch).expect("the seeds are written");
    for (target, _) in quorate_fuzz::TARGETS {
        let inputs = inputs(&scratch.join(target));
        assert!(inputs.len() >= 10, "{target} has {} seeds", inputs.len());
        run(target, &inputs);
    }
    fs::remove_dir_all(&scratch).expect("the seeds are removed");
}
