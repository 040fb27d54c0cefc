//! `version`: the client's and the server's.

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
    /// Only the client's
    #[arg(long)]
    pub client: bool,
    /// yaml or json
    #[arg(short = 'o', long)]
    output: Option<String>,
}

/// How the versions are printed.
enum Format {
    Lines,
    Json,
    Yaml,
}

const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

impl Version {
    /// Whether the flags can be followed; there is no need to look for a server otherwise.
    ///
    /// # Errors
    /// When they ask for a format that there is not.
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

    /// Runs `qctl version` where there is no kubeconfig: exit code, output and errors.
    async fn version(flags: &[&str]) -> (u8, String, String) {
        let (streams, output, errors) = Streams::captured("");
        let words: Vec<OsString> = ["qctl", "version"].iter().chain(flags).map(OsString::from).collect();
        let code = crate::execute(words, streams, Environment::default()).await;
        (code, output.text(), errors.text())
    }

    #[tokio::test]
    async fn the_clients_version_needs_no_server() {
        let told = |text: String| (0, text, String::new());
        let plain = told(format!("Client Version: {CLIENT}\n"));
        assert_eq!(version(&["--client"]).await, plain);
        assert_eq!(version(&["--client=true", "--output="]).await, plain);
        let json = format!("{{\n    \"clientVersion\": {{\n        \"gitVersion\": \"{CLIENT}\"\n    }}\n}}\n");
        assert_eq!(version(&["--client", "-o", "json"]).await, told(json));
        let yaml = format!("clientVersion:\n  gitVersion: {CLIENT}\n");
        assert_eq!(version(&["--client", "--output=yaml"]).await, told(yaml));
    }

    #[tokio::test]
    async fn only_documents_can_be_asked_for() {
        for format in ["wide", "name", "jsonpath={.clientVersion}", "xml"] {
            let refused = "error: --output must be 'yaml' or 'json'\n".to_owned();
            assert_eq!(version(&["--client", "-o", format]).await, (1, String::new(), refused.clone()), "{format}");
            // Before anybody looks for a server, of which there is none here.
            assert_eq!(version(&["-o", format]).await, (1, String::new(), refused), "{format}");
        }
    }

    #[tokio::test]
    async fn without_a_kubeconfig_there_is_no_server_to_ask() {
        let (code, output, errors) = version(&[]).await;
        assert_eq!((code, output.as_str()), (1, ""));
        assert!(errors.starts_with("error: no kubeconfig with a cluster was found"), "{errors}");
    }
}
