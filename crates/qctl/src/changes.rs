//! Shared by the commands that change objects: their flags and the report of a change.

use serde_json::Value;

use crate::error::Result;
use crate::output::{self, Format};
use crate::resources::Resource;
use crate::session::Session;
use crate::three_way;
use crate::verbs::DryRun;

/// The flags of commands that change objects.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChangeFlags {
    /// client: send nothing; server: run all checks on the server but store nothing
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Print the object in this format instead: name, yaml, json or jsonpath=…
    #[arg(short = 'o', long)]
    pub output: Option<String>,
}

/// Whether an object is recorded for a later apply, as a flag.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct SaveConfig {
    /// Record the object for a later apply
    #[arg(long)]
    save_config: bool,
}

impl SaveConfig {
    /// Returns the object, with itself in an annotation if it is recorded.
    #[must_use]
    pub fn annotate(self, object: Value) -> Value {
        if self.save_config { three_way::annotated(&object) } else { object }
    }
}

impl ChangeFlags {
    /// Prints `deployment.apps/web configured`, or the object in the requested format.
    ///
    /// # Errors
    /// When the format is unknown or the output is closed.
    pub fn report(&self, session: &mut Session, resource: &Resource, object: &Value, done: &str) -> Result<()> {
        let format = Format::parse(self.output.as_deref())?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let title = format!("{}/{name}", resource.kind_name());
        match format {
            Format::Table { .. } | Format::Columns(_) => {
                session.streams.line(format!("{title} {done}{}", self.dry_run.suffix()))
            }
            Format::Name => session.streams.line(title),
            format => session.streams.text(output::document(&format, object)?),
        }
    }
}
