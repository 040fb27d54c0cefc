//! `explain`: shows the documentation of a kind and of its fields.

use crate::error::{CliError, Result};
use crate::explain::{self, Subject};
use crate::path::RequestPath;
use crate::resources::Resource;
use crate::session::Session;
use crate::transport::Call;

/// Show the documentation of a kind, or of one of its fields
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The kind, and the path of a field: pods.spec.containers
    #[arg(value_name = "TYPE[.FIELD...]")]
    subject: String,
    /// List the fields of fields too, by name only
    #[arg(long)]
    recursive: bool,
    /// The group and version of the kind, such as apps/v1
    #[arg(long, value_name = "VERSION")]
    api_version: Option<String>,
    /// Output format; plaintext is the only one
    #[arg(short = 'o', long, default_value = "plaintext")]
    output: String,
}

impl Explain {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.output != "plaintext" {
            return Err(CliError::usage(format!("--output {} is not available; use plaintext", self.output)));
        }
        let words: Vec<&str> = self.subject.trim_end_matches('.').split('.').collect();
        let (resource, fields) = find(session, &words).await?;
        let given = self.api_version.as_deref().map(|text| text.rsplit_once('/').unwrap_or(("", text)));
        let (group, version) = given.unwrap_or((resource.group.as_str(), resource.version.as_str()));
        let subject = Subject { group, version, resource: &resource.plural };
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let index = session.transport.json(&Call::get(RequestPath::raw("/openapi/v3"))).await?;
        let url = index["paths"][&path]["serverRelativeURL"].as_str().ok_or_else(|| {
            CliError::usage(format!("couldn't find resource for \"{group}/{version}, Resource={}\"", resource.plural))
        })?;
        let document = session.transport.json(&Call::get(RequestPath::raw(url))).await?;
        let mut text = String::new();
        let rendered = explain::render(&document, subject, fields, self.recursive, &mut text);
        session.streams.text(text)?;
        rendered.map_err(|error| CliError::usage(error.to_string()))
    }
}

/// Finds the resource that the words begin with, and the fields after it. A name with its group is preferred to a name
/// alone, as in `deployments.apps.spec`.
async fn find<'a>(session: &mut Session, words: &'a [&'a str]) -> Result<(std::sync::Arc<Resource>, &'a [&'a str])> {
    let discovery = session.discovery().await?;
    let begins = |resource: &&Resource| {
        let name = resource.group_resource();
        !resource.group.is_empty() && name.split('.').eq(words.iter().copied().take(name.split('.').count()))
    };
    let longest = discovery.resources.iter().filter(begins).max_by_key(|resource| resource.group.len());
    if let Some(resource) = longest {
        return Ok((std::sync::Arc::new(resource.clone()), &words[resource.group_resource().split('.').count()..]));
    }
    Ok((session.one_type(words[0]).await?, &words[1..]))
}
