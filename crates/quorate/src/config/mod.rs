//! Configuration of the long-running commands. One struct per command defines the flags, the environment variables and
//! the keys of the file, so that they cannot differ. A flag overrides the environment, which overrides the file, which
//! overrides the default.

pub mod agent;
mod members;
pub mod server;

pub use agent::{AgentArgs, AgentConfig, AgentOptions, Runtime};
pub use members::MemberSpec;
pub use server::{FenceDefault, Join, Managed, ServerArgs, ServerConfig, ServerOptions, check_quorum_size};

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;

/// Reads a TOML file of options.
fn read_file<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
}

/// Subdirectory of the data directory for certificates issued by Quorate.
pub const PKI_DIRECTORY: &str = "pki";

/// Returns this machine's name in lower case, as Kubernetes requires it.
fn host_name() -> anyhow::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().to_lowercase())
}

fn required<T>(value: Option<T>, key: &str) -> anyhow::Result<T> {
    value.ok_or_else(|| anyhow::anyhow!("`{key}` is not set; give --{key} or set it in the configuration file"))
}

/// Reads a PEM file, with an error that names the file.
pub fn read_pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read the certificate or key {}", path.display()))
}

/// A duration with its unit, such as `10s` or `1m30s`, in flags and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl std::str::FromStr for HumanDuration {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(HumanDuration)
    }
}

impl<'de> serde::Deserialize<'de> for HumanDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}; write it as 10s or 5m")))
    }
}

impl serde::Serialize for HumanDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// Implements `over`, which takes each field from the first of the two that has it.
macro_rules! overlay {
    ($type:ty, $($field:ident),+ $(,)?) => {
        impl $type {
            pub(super) fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field)),+ }
            }
        }
    };
}
use overlay;

/// Certificate, key, and the authority that signs the other side's certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[cfg(test)]
mod tests;
