//! What commands that change objects have in common: dry runs, and telling what happened.

use serde_json::Value;

use crate::error::Result;
use crate::output::{self, Format};
use crate::resources::Resource;
use crate::session::Session;
use crate::verbs::DryRun;

/// The flags of commands that change objects.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChangeFlags {
    /// client: send nothing; server: check on the server and keep nothing
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Print the object instead: name, yaml, json or jsonpath=…
    #[arg(short = 'o', long)]
    pub output: Option<String>,
}

impl ChangeFlags {
    /// Prints `deployment.apps/web configured`, or the object in the format asked for.
    ///
    /// # Errors
    /// When the format is unknown or the output closed.
    pub fn report(&self, session: &mut Session, resource: &Resource, object: &Value, done: &str) -> Result<()> {
        let format = Format::parse(self.output.as_deref())?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let title = format!("{}/{name}", resource.kind_name());
        match format {
            Format::Table { .. } | Format::Columns(_) => {
                session.streams.line(format!("{title} {done}{}", self.dry_run.suffix()))
            }
            Format::Name => session.streams.line(title),
            Format::Yaml => session.streams.text(output::yaml(object)),
            Format::Json => session.streams.text(output::json(object)?),
            Format::JsonPath(path) => session.streams.text(path.render(object)),
        }
    }
}
