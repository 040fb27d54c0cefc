//! Tokens of service accounts.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::output::{self, Format};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::Call;

/// A token of a service account
#[derive(Debug, clap::Args)]
pub struct Token {
    /// The service account
    name: String,
    /// Who accepts the token, instead of the API server
    #[arg(long)]
    audience: Vec<String>,
    /// Lifetime of the token, such as 10m; 0 leaves it to the server
    #[arg(long, default_value = "0", value_parser = crate::duration::parse)]
    duration: Duration,
    /// Kind of an object with whose deletion the token ends: Node, Pod or Secret
    #[arg(long)]
    bound_object_kind: Option<String>,
    #[arg(long)]
    bound_object_name: Option<String>,
    #[arg(long)]
    bound_object_uid: Option<String>,
    /// Output format: yaml, json, name or jsonpath=…
    #[arg(short = 'o', long)]
    output: Option<String>,
}

const BOUND_KINDS: [&str; 3] = ["Node", "Pod", "Secret"];

impl Token {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let format = Format::parse(self.output.as_deref())?;
        let request = self.request()?;
        let accounts = session.one_type("serviceaccounts").await?;
        let path = RequestPath::object(&accounts, Some(&session.namespace), &self.name).subresource("token");
        let answer = session.transport.json(&Call::new(Method::POST, path).body(&request)).await;
        let answer = answer.map_err(|error| match error {
            CliError::Server(status) => CliError::usage(format!("failed to create token: {}", status.message)),
            other => other,
        })?;
        let token = answer["status"]["token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| CliError::usage("failed to create token: no token in server response"))?;
        match format {
            Format::Name => session.streams.line(format!("tokenrequest.authentication.k8s.io/{}", self.name)),
            Format::Table { .. } | Format::Columns(_) if session.streams.interactive => session.streams.line(token),
            // A script gets the token alone.
            Format::Table { .. } | Format::Columns(_) => session.streams.text(token),
            format => session.streams.text(output::document(&format, &answer)?),
        }
    }

    fn request(&self) -> Result<Value> {
        if self.duration.subsec_nanos() > 0 {
            return Err(CliError::usage("--duration cannot be expressed in units less than seconds"));
        }
        if self.audience.iter().any(String::is_empty) {
            return Err(CliError::usage("--audience must not be an empty string"));
        }
        let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        if !self.audience.is_empty() {
            request["spec"]["audiences"] = json!(self.audience);
        }
        if !self.duration.is_zero() {
            request["spec"]["expirationSeconds"] = self.duration.as_secs().into();
        }
        match (&self.bound_object_kind, &self.bound_object_name, &self.bound_object_uid) {
            (None, None, None) => {}
            (None, Some(_), _) => {
                return Err(CliError::usage("--bound-object-name can only be set if --bound-object-kind is provided"));
            }
            (None, None, Some(_)) => {
                return Err(CliError::usage("--bound-object-uid can only be set if --bound-object-kind is provided"));
            }
            (Some(kind), ..) if !BOUND_KINDS.contains(&kind.as_str()) => {
                return Err(CliError::usage(format!(
                    "supported --bound-object-kind values are {}",
                    BOUND_KINDS.join(", ")
                )));
            }
            (Some(_), None, _) => {
                return Err(CliError::usage("--bound-object-name is required if --bound-object-kind is provided"));
            }
            (Some(kind), Some(name), uid) => {
                let mut bound = json!({"kind": kind, "apiVersion": "v1", "name": name});
                if let Some(uid) = uid {
                    bound["uid"] = uid.clone().into();
                }
                request["spec"]["boundObjectRef"] = bound;
            }
        }
        Ok(request)
    }
}
