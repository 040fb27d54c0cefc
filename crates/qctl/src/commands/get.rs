//! `get`: shows objects as tables or documents, once or whenever they change.

mod follow;
mod tables;

use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::output::{self, Format, TablePrinter, natural_order};
use crate::path::RequestPath;
use crate::resources::{SelectFlags, Selected, Target, objects, select};
use crate::session::Session;
use crate::transport::Call;

/// Show objects
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
pub struct Get {
    /// TYPE, TYPE NAME…, TYPE/NAME… or TYPE,TYPE
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    select: SelectFlags,
    /// Output format: wide, yaml, json, name, jsonpath=…, custom-columns=…
    #[arg(short = 'o', long)]
    output: Option<String>,
    /// Keep showing changes
    #[arg(short = 'w', long)]
    watch: bool,
    /// Show changes without the current objects
    #[arg(long)]
    watch_only: bool,
    /// With a watch, show the type of each change
    #[arg(long)]
    output_watch_events: bool,
    /// Sort by the value at this path, such as .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,
    #[arg(long)]
    no_headers: bool,
    /// Add a column with all labels
    #[arg(long)]
    show_labels: bool,
    /// Add a column for each of these labels
    #[arg(short = 'L', long, value_delimiter = ',', value_name = "LABEL")]
    label_columns: Vec<String>,
    /// Print names as TYPE/NAME
    #[arg(long)]
    show_kind: bool,
    /// Succeed if a named object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Read large lists in chunks of this size; 0 reads everything at once
    #[arg(long, default_value_t = crate::verbs::CHUNK)]
    chunk_size: u32,
    /// Keep metadata.managedFields in documents
    #[arg(long)]
    show_managed_fields: bool,
    /// Show this part of the object, such as status or scale
    #[arg(long)]
    subresource: Option<String>,
    /// Send a GET request for this path and print the response
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
}

impl Get {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if let Some(path) = &self.raw {
            let answer = session.transport.bytes(&Call::get(RequestPath::raw(path))).await?;
            return session.streams.text(answer);
        }
        let format = Format::parse(self.output.as_deref())?;
        if self.arguments.is_empty() && self.files.is_empty() {
            return Err(CliError::usage(
                "You must specify the type of resource to get; `qctl api-resources` lists them all",
            ));
        }
        let targets = select(session, &self.arguments, &self.files, &self.select).await?;
        if self.watch || self.watch_only {
            return follow::run(&self, session, &format, &targets).await;
        }
        if format.is_table() {
            tables::run(&self, session, &format, &targets).await
        } else {
            self.documents(session, &format, &targets).await
        }
    }

    /// Prints a single object as it is, and several as a List.
    async fn documents(&self, session: &mut Session, format: &Format, targets: &[Target]) -> Result<()> {
        let (mut found, mut errors) = match &self.subresource {
            Some(subresource) => self.parts(session, targets, subresource).await?,
            None => objects(session, targets, &self.select).await?,
        };
        if self.ignore_not_found {
            errors.retain(|error| !error.is_not_found());
        }
        if let Some(path) = &self.sort_by {
            sort(&mut found, path)?;
        }
        let single = targets.len() == 1 && targets[0].name.is_some();
        let nothing = found.is_empty() && (single || !errors.is_empty());
        if !nothing {
            self.print(session, format, found, single)?;
        }
        CliError::collect(errors)
    }

    async fn parts(
        &self,
        session: &Session,
        targets: &[Target],
        subresource: &str,
    ) -> Result<(Vec<Selected>, Vec<CliError>)> {
        let mut found = Vec::new();
        for target in targets {
            let name =
                target.name.as_ref().ok_or_else(|| CliError::usage("--subresource needs the name of an object"))?;
            let path =
                RequestPath::object(&target.resource, target.namespace.as_deref(), name).subresource(subresource);
            let object = session.transport.json(&Call::get(path)).await?;
            found.push(Selected { resource: target.resource.clone(), object });
        }
        Ok((found, Vec::new()))
    }

    fn print(&self, session: &mut Session, format: &Format, mut found: Vec<Selected>, single: bool) -> Result<()> {
        if !self.show_managed_fields {
            found.iter_mut().for_each(|selected| hide_managed_fields(&mut selected.object));
        }
        match format {
            Format::Name => {
                for selected in &found {
                    session.streams.line(selected.title())?;
                }
                Ok(())
            }
            Format::Columns(columns) => {
                let rows: Vec<Vec<String>> = found.iter().map(|selected| columns.row(&selected.object)).collect();
                session.streams.text(TablePrinter::default().rows(&columns.headers(), &rows, self.no_headers))
            }
            format => {
                let document = if single && found.len() == 1 {
                    found.remove(0).object
                } else {
                    let items: Vec<Value> = found.into_iter().map(|selected| selected.object).collect();
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
                };
                session.streams.text(output::document(format, &document)?)
            }
        }
    }
}

fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Sorts by the first value that a path selects. Objects without a value come first.
fn sort(found: &mut [Selected], path: &str) -> Result<()> {
    let path = sort_path(path)?;
    found.sort_by(|left, right| {
        compare(path.select(&left.object).first().copied(), path.select(&right.object).first().copied())
    });
    Ok(())
}

fn sort_path(path: &str) -> Result<crate::jsonpath::JsonPath> {
    crate::jsonpath::JsonPath::relaxed(path).map_err(|error| CliError::usage(error.to_string()))
}

fn compare(left: Option<&Value>, right: Option<&Value>) -> std::cmp::Ordering {
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            left.as_f64().unwrap_or(0.0).total_cmp(&right.as_f64().unwrap_or(0.0))
        }
        (Some(left), Some(right)) => natural_order(&crate::jsonpath::text_of(left), &crate::jsonpath::text_of(right)),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}
