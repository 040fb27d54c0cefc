//! `get --watch`: shows the current objects and then each change, also across restarts of the server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{CliError, Result};
use crate::output::{self, Format, ServerTable, TablePrinter, TableStyle};
use crate::path::RequestPath;
use crate::resources::{SelectFlags, Target};
use crate::session::Session;
use crate::transport::Call;
use crate::watch::{Watch, WatchEvent};

use super::{Get, tables};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

pub async fn run(get: &Get, session: &mut Session, format: &Format, targets: &[Target]) -> Result<()> {
    let [target] = targets else {
        return Err(CliError::usage("you may only specify a single resource type (or a single object) with --watch"));
    };
    let mut flags = get.select.clone();
    if let Some(name) = &target.name {
        flags = SelectFlags { field_selector: Some(format!("metadata.name={name}")), ..SelectFlags::default() };
    }
    let path = flags.query(RequestPath::collection(&target.resource, target.namespace.as_deref()));
    let mut view = View {
        get,
        format,
        style: tables::style(get, format, &target.resource, false),
        printer: TablePrinter::default(),
        columns: ServerTable::default(),
    };
    let mut version = view.present(session, target, &path).await?;
    let mut broken_since: Option<Instant> = None;
    loop {
        match view.changes(session, &path, &mut version).await {
            Ok(()) => broken_since = None,
            Err(error) if error.is_expired() => {
                tracing::debug!("the watch fell behind the history that the server keeps; listing again");
                version = view.latest(session, &path).await?;
            }
            Err(error @ (CliError::Connect { .. } | CliError::Broken { .. })) => {
                let since = *broken_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct View<'a> {
    get: &'a Get,
    format: &'a Format,
    style: TableStyle,
    printer: TablePrinter,
    /// The columns of the last table, which later tables may leave out.
    columns: ServerTable,
}

impl View<'_> {
    fn accept(&self) -> Option<&'static str> {
        self.format.is_table().then_some(tables::ACCEPT)
    }

    async fn document(&self, session: &Session, path: &RequestPath) -> Result<Value> {
        let mut call = Call::get(path.clone());
        if let Some(accept) = self.accept() {
            call = call.accept(accept);
        }
        session.transport.json(&call).await
    }

    async fn latest(&self, session: &Session, path: &RequestPath) -> Result<String> {
        Ok(version_of(&self.document(session, path).await?))
    }

    /// Prints the current objects, unless only changes are requested. Returns the version at which the watch starts.
    async fn present(&mut self, session: &mut Session, target: &Target, path: &RequestPath) -> Result<String> {
        let mut list = self.document(session, path).await?;
        let version = version_of(&list);
        let empty = list["items"].as_array().or(list["rows"].as_array()).is_none_or(Vec::is_empty);
        if empty && let Some(name) = &target.name {
            // The server's own error is reported.
            session.get(&target.resource, target.namespace.as_deref(), name).await?;
        }
        if self.get.watch_only {
            return Ok(version);
        }
        if self.format.is_table() {
            self.print(session, "ADDED", list)?;
        } else if let Value::Array(items) = list["items"].take() {
            for mut item in items {
                item["apiVersion"] = target.resource.api_version().into();
                item["kind"] = target.resource.kind.clone().into();
                self.print(session, "ADDED", item)?;
            }
        }
        Ok(version)
    }

    async fn changes(&mut self, session: &mut Session, path: &RequestPath, version: &mut String) -> Result<()> {
        let mut watch: Watch = session.watch(path.clone(), version, self.accept()).await?;
        while let Some(event) = watch.next().await? {
            let WatchEvent { kind, object } = event;
            let seen = object["rows"][0]["object"]["metadata"]["resourceVersion"]
                .as_str()
                .or(object["metadata"]["resourceVersion"].as_str())
                .filter(|seen| !seen.is_empty());
            if let Some(seen) = seen {
                seen.clone_into(version);
            }
            if kind != "BOOKMARK" {
                self.print(session, &kind, object)?;
            }
        }
        Ok(())
    }

    fn print(&mut self, session: &mut Session, kind: &str, mut object: Value) -> Result<()> {
        match self.format {
            Format::Table { .. } => self.print_rows(session, kind, object)?,
            Format::Name => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let type_name = object["kind"].as_str().unwrap_or_default().to_lowercase();
                session.streams.line(format!("{type_name}/{name}"))?;
            }
            Format::Columns(columns) => {
                let rows = [columns.row(&object)];
                let text = self.printer.rows(&columns.headers(), &rows, self.get.no_headers);
                session.streams.text(text)?;
            }
            format => {
                if !self.get.show_managed_fields {
                    super::hide_managed_fields(&mut object);
                }
                if self.get.output_watch_events {
                    object = json!({"type": kind, "object": object});
                }
                if *format == Format::Yaml {
                    session.streams.line("---")?;
                }
                session.streams.text(output::document(format, &object)?)?;
            }
        }
        session.streams.flush()
    }

    fn print_rows(&mut self, session: &mut Session, kind: &str, table: Value) -> Result<()> {
        let mut table: ServerTable =
            serde_json::from_value(table).map_err(|error| CliError::Answer(format!("a table: {error}")))?;
        if table.column_definitions.is_empty() {
            table.column_definitions.clone_from(&self.columns.column_definitions);
        } else {
            self.columns.column_definitions.clone_from(&table.column_definitions);
        }
        if table.rows.is_empty() {
            return Ok(());
        }
        if self.get.output_watch_events {
            table.column_definitions.insert(0, crate::output::Column { name: "EVENT".to_owned(), priority: 0 });
            table.rows.iter_mut().for_each(|row| row.cells.insert(0, kind.into()));
        }
        session.streams.text(self.printer.server_table(&table, &self.style))
    }
}

fn version_of(list: &Value) -> String {
    list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned()
}
