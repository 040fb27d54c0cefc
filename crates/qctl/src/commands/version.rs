//! `version`: the client's and the server's.

use serde_json::json;

use crate::error::Result;
use crate::output::{self, Format};
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

const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

impl Version {
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
        match Format::parse(self.output.as_deref())? {
            Format::Json => streams.text(output::json(&document)?),
            Format::Yaml => streams.text(output::yaml(&document)),
            _ => {
                streams.line(format!("Client Version: {CLIENT}"))?;
                match server.as_ref().and_then(|server| server["gitVersion"].as_str()) {
                    Some(version) => streams.line(format!("Server Version: {version}")),
                    None => Ok(()),
                }
            }
        }
    }
}
