//! `/version`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::metadata;

/// The Kubernetes version whose API is served.
const MAJOR: &str = "1";
const MINOR: &str = "36";

/// The origin of the binary. The binary passes it in, so that a new commit does not rebuild this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The commit's full hash; empty when it is not known.
    pub commit: &'static str,
    /// `clean`, `dirty`, or `archive` for a build without the repository.
    pub tree_state: &'static str,
    /// Seconds since 1970.
    pub date_seconds: i64,
}

impl Default for Build {
    /// Returns the values of a build from an archive of the sources.
    fn default() -> Self {
        Build { commit: "", tree_state: "archive", date_seconds: 0 }
    }
}

/// Renders `version.Info`, with Quorate's own version as build metadata.
pub(crate) fn version(build: Build) -> Value {
    let platform = format!("{}/{}", std::env::consts::OS, quorate_api::architecture(std::env::consts::ARCH));
    let date = Timestamp::from_second(build.date_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "gitVersion": git_version(),
        "gitCommit": build.commit,
        "gitTreeState": build.tree_state,
        "buildDate": metadata::time(date),
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}

pub(crate) fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.0+quorate-{}", env!("CARGO_PKG_VERSION"))
}
