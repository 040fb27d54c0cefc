//! `events`: shows the events of a namespace or of one object, oldest first.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::events;
use crate::output::{self, Format, TablePrinter};
use crate::path::RequestPath;
use crate::resources::SelectFlags;
use crate::session::Session;

/// Show events
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Only events about TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only events of these types, such as Warning
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Keep showing new events
    #[arg(short = 'w', long)]
    watch: bool,
    #[arg(long)]
    no_headers: bool,
    /// Output format: yaml or json
    #[arg(short = 'o', long)]
    output: Option<String>,
}

impl Events {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let format = Format::parse(self.output.as_deref())?;
        let resource = session.one_type("events").await?;
        let about = match &self.about {
            Some(about) => {
                let (kind, name) =
                    about.split_once('/').ok_or_else(|| CliError::usage("--for must be in resource/name form"))?;
                Some((session.one_type(kind).await?.kind.clone(), name.to_owned()))
            }
            None => None,
        };
        let namespace = session.list_namespace(&resource, self.all_namespaces);
        let (mut found, mut version) = session
            .list_versioned(&resource, namespace.as_deref(), &SelectFlags::default(), crate::verbs::CHUNK)
            .await?;
        let wanted = |event: &Value| {
            let object = &event["involvedObject"];
            about.as_ref().is_none_or(|(kind, name)| object["kind"] == kind.as_str() && object["name"] == name.as_str())
                && (self.types.is_empty()
                    || self
                        .types
                        .iter()
                        .any(|known| event["type"].as_str().is_some_and(|shown| shown.eq_ignore_ascii_case(known))))
        };
        found.retain(wanted);
        found.sort_by_key(|event| events::last_seen(event).map(str::to_owned));
        if !format.is_table() {
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": found});
            let text = if format == Format::Json { output::json(&list)? } else { output::yaml(&list) };
            return session.streams.text(text);
        }
        if found.is_empty() && !self.watch {
            return session.streams.note(match &namespace {
                Some(namespace) => format!("No events found in {namespace} namespace."),
                None => "No events found.".to_owned(),
            });
        }
        let mut printer = TablePrinter::default();
        self.print(session, &mut printer, &found)?;
        if !self.watch {
            return Ok(());
        }
        loop {
            let path = RequestPath::collection(&resource, namespace.as_deref());
            let mut watch = session.watch(path, &version, None).await?;
            while let Some(change) = watch.next().await? {
                if let Some(seen) = change.object["metadata"]["resourceVersion"].as_str() {
                    seen.clone_into(&mut version);
                }
                if !change.is_bookmark() && change.kind != "DELETED" && wanted(&change.object) {
                    self.print(session, &mut printer, std::slice::from_ref(&change.object))?;
                    session.streams.flush()?;
                }
            }
        }
    }

    fn print(&self, session: &mut Session, printer: &mut TablePrinter, found: &[Value]) -> Result<()> {
        let mut headers = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
        if self.all_namespaces {
            headers.insert(0, "NAMESPACE");
        }
        let headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
        let now = Timestamp::now();
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().trim().to_owned();
                let mut row = vec![
                    events::interval(event, now),
                    text("type"),
                    text("reason"),
                    events::subject(event),
                    text("message"),
                ];
                if self.all_namespaces {
                    row.insert(0, event["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
                }
                row
            })
            .collect();
        session.streams.text(printer.rows(&headers, &rows, self.no_headers))
    }
}
