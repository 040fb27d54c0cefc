//! `version`: prints the versions of the client and the server.

use serde_json::json;

use crate::error::{CliError, Result};
use crate::output;
use crate::path::RequestPath;
use crate::session::Session;
use crate::streams::Streams;
use crate::transport::Call;

/// Print the versions of client and server
#[derive(Debug, clap::Args)]
pub struct Version {
    /// Print only the client's version
    #[arg(long)]
    pub client: bool,
    /// Output format: yaml or json
    #[arg(short = 'o', long)]
    output: Option<String>,
}

/// The output format of the versions.
enum Format {
    Lines,
    Json,
    Yaml,
}

const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

impl Version {
    /// Checks the flags before a connection is made.
    ///
    /// # Errors
    /// When the output format is unknown.
    pub fn check(&self) -> Result<()> {
        self.format().map(drop)
    }

    fn format(&self) -> Result<Format> {
        match self.output.as_deref().unwrap_or_default() {
            "" => Ok(Format::Lines),
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            _ => Err(CliError::usage("--output must be 'yaml' or 'json'")),
        }
    }

    pub fn run_client(&self, streams: &mut Streams) -> Result<()> {
        self.print(streams, None)
    }

    pub async fn run(self, session: &mut Session) -> Result<()> {
        match session.transport.json(&Call::get(RequestPath::raw("/version"))).await {
            Ok(server) => self.print(&mut session.streams, Some(server)),
            Err(error) => {
                self.print(&mut session.streams, None)?;
                Err(error)
            }
        }
    }

    fn print(&self, streams: &mut Streams, server: Option<serde_json::Value>) -> Result<()> {
        let mut document = json!({"clientVersion": {"gitVersion": CLIENT}});
        if let Some(server) = &server {
            document["serverVersion"] = server.clone();
        }
        match self.format()? {
            Format::Json => streams.text(output::json(&document)?),
            Format::Yaml => streams.text(output::yaml(&document)),
            Format::Lines => {
                streams.line(format!("Client Version: {CLIENT}"))?;
                match server.as_ref().and_then(|server| server["gitVersion"].as_str()) {
                    Some(version) => streams.line(format!("Server Version: {version}")),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::kubeconfig::Environment;

    /// Runs `qctl version` without a kubeconfig, and returns the exit code, the output and the errors.
    async fn version(flags: &[&str]) -> (u8, String, String) {
        let (streams, output, errors) = Streams::captured("");
        let words: Vec<OsString> = ["qctl", "version"].iter().chain(flags).map(OsString::from).collect();
        let code = crate::execute(words, streams, Environment::default()).await;
        (code, output.text(), errors.text())
    }

    #[tokio::test]
    async fn the_clients_version_needs_no_server() {
        let printed = |text: String| (0, text, String::new());
        let plain = printed(format!("Client Version: {CLIENT}\n"));
        assert_eq!(version(&["--client"]).await, plain);
        assert_eq!(version(&["--client=true", "--output="]).await, plain);
        let json = format!("{{\n    \"clientVersion\": {{\n        \"gitVersion\": \"{CLIENT}\"\n    }}\n}}\n");
        assert_eq!(version(&["--client", "-o", "json"]).await, printed(json));
        let yaml = format!("clientVersion:\n  gitVersion: {CLIENT}\n");
        assert_eq!(version(&["--client", "--output=yaml"]).await, printed(yaml));
    }

    #[tokio::test]
    async fn unknown_formats_are_refused_before_connecting() {
        for format in ["wide", "name", "jsonpath={.clientVersion}", "xml"] {
            let refused = "error: --output must be 'yaml' or 'json'\n".to_owned();
            assert_eq!(version(&["--client", "-o", format]).await, (1, String::new(), refused.clone()), "{format}");
            // There is no server here, so the refusal comes before any connection.
            assert_eq!(version(&["-o", format]).await, (1, String::new(), refused), "{format}");
        }
    }

    #[tokio::test]
    async fn the_servers_version_needs_a_kubeconfig() {
        let (code, output, errors) = version(&[]).await;
        assert_eq!((code, output.as_str()), (1, ""));
        assert!(errors.starts_with("error: no kubeconfig with a cluster was found"), "{errors}");
    }
}
