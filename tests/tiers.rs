//! Checks of the architecture's tiers: dependencies point down, and pure crates stay pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Tiers from the bottom up. A crate may depend on crates of its own tier and of those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Pure,
    Io,
    Root,
    Test,
}

const TIERS: &[(&str, Tier)] = &[
    ("quorate-api", Tier::Pure),
    ("quorate-mvcc", Tier::Pure),
    ("quorate-registry", Tier::Pure),
    ("quorate-schema", Tier::Pure),
    ("quorate-scheduler", Tier::Pure),
    ("quorate-controllers", Tier::Pure),
    ("quorate-pki", Tier::Io),
    ("quorate-store", Tier::Io),
    ("quorate-etcd", Tier::Io),
    ("quorate-apiserver", Tier::Io),
    ("quorate-manager", Tier::Io),
    ("quorate-agent", Tier::Io),
    ("quorate-qctl", Tier::Root),
    ("quorate", Tier::Root),
    ("quorate-bench", Tier::Test),
    ("quorate-chaos", Tier::Test),
    ("quorate-fuzz", Tier::Test),
    ("quorate-tests", Tier::Test),
    ("xtask", Tier::Test),
];

/// Crates that a pure crate must not depend on, directly or indirectly.
const BANNED_IN_PURE: &[&str] = &[
    "axum",
    "bollard",
    "getrandom",
    "hyper",
    "kube",
    "mio",
    "nix",
    "openraft",
    "rand",
    "reqwest",
    "rocksdb",
    "rustls",
    "tokio",
];

/// Calls that make a function's result depend on more than its arguments.
const IMPURE_CALLS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "std::env::",
    "std::fs::",
    "TcpStream",
    "UdpSocket",
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).exec().expect("cargo metadata")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn tier(name: &str) -> Option<Tier> {
    TIERS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, tier)| *tier)
}

#[test]
fn every_crate_has_a_tier() {
    let metadata = metadata();
    let found = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect::<BTreeSet<_>>();
    let named = TIERS.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found, named, "the table of tiers and the workspace differ");
}

#[test]
fn dependencies_point_down() {
    for package in metadata().workspace_packages() {
        let own = tier(&package.name).expect("a tier");
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let Some(other) = tier(&dependency.name) else { continue };
            assert!(other <= own, "{} ({own:?}) depends on {} ({other:?})", package.name, dependency.name);
            let composes = package.name == "quorate" && dependency.name == "quorate-qctl";
            assert!(own < Tier::Root || other < own || composes, "{} depends on {}", package.name, dependency.name);
        }
    }
}

#[test]
fn pure_crates_reach_nothing_impure() {
    let metadata = metadata();
    let names = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect::<BTreeMap<_, _>>();
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let edges = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            (&node.id, node.deps.iter().filter(normal).map(|d| &d.pkg).collect::<Vec<_>>())
        })
        .collect::<BTreeMap<_, _>>();
    for package in metadata.workspace_packages() {
        if tier(&package.name) != Some(Tier::Pure) {
            continue;
        }
        let mut seen = BTreeSet::<&PackageId>::new();
        let mut open = vec![&package.id];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                let name = names[id];
                assert!(!BANNED_IN_PURE.contains(&name), "pure crate {} reaches {name}", package.name);
                open.extend(edges[id].iter().copied());
            }
        }
    }
}

#[test]
fn pure_crates_ask_no_clock_and_no_disk() {
    for (name, _) in TIERS.iter().filter(|(_, tier)| *tier == Tier::Pure) {
        let short = name.trim_start_matches("quorate-");
        for file in rust_files(&workspace().join("crates").join(short).join("src")) {
            if file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in IMPURE_CALLS {
                assert!(!code.contains(call), "{} calls {call}", file.display());
            }
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for package in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", package.name);
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}
