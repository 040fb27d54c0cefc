//! `/version`.

use serde_json::{Value, json};

/// The Kubernetes version whose API this is.
const MAJOR: &str = "1";
const MINOR: &str = "36";

/// `version.Info`, with our own version as build metadata.
pub(crate) fn version() -> Value {
    let platform = format!("{}/{}", std::env::consts::OS, quorate_api::architecture(std::env::consts::ARCH));
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+quorate-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}
