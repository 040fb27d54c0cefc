//! `label` and `annotate`: sets and removes entries of metadata.

use serde_json::{Map, Value, json};

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};

/// Set and remove labels
#[derive(Debug, clap::Args)]
pub struct Label {
    #[command(flatten)]
    entries: Entries,
}

/// Set and remove annotations
#[derive(Debug, clap::Args)]
pub struct Annotate {
    #[command(flatten)]
    entries: Entries,
}

#[derive(Debug, clap::Args)]
struct Entries {
    /// TYPE NAME… or TYPE/NAME…, then KEY=VALUE to set and KEY- to remove
    #[arg(value_name = "TYPE[/NAME] KEY=VALUE|KEY-", allow_hyphen_values = false)]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    select: SelectFlags,
    #[command(flatten)]
    change: ChangeFlags,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// Allow existing values to be replaced
    #[arg(long)]
    overwrite: bool,
    /// Only show the current entries
    #[arg(long)]
    list: bool,
    /// Fail unless the object has this resource version
    #[arg(long)]
    resource_version: Option<String>,
}

impl Label {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        self.entries.run(session, "labels", "label", ["labeled", "unlabeled"]).await
    }
}

impl Annotate {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        self.entries.run(session, "annotations", "annotation", ["annotated", "annotated"]).await
    }
}

/// A key, with its new value for `KEY=VALUE` or `None` for `KEY-`, which removes it.
type Change = (String, Option<String>);

/// Splits the arguments into names of objects and changes.
fn split(arguments: &[String]) -> (Vec<String>, Vec<Change>) {
    let (mut names, mut changes) = (Vec::new(), Vec::new());
    for (index, argument) in arguments.iter().enumerate() {
        match argument.split_once('=') {
            Some((key, value)) => changes.push((key.to_owned(), Some(value.to_owned()))),
            None => match argument.strip_suffix('-').filter(|_| index > 0) {
                Some(key) => changes.push((key.to_owned(), None)),
                None => names.push(argument.clone()),
            },
        }
    }
    (names, changes)
}

impl Entries {
    async fn run(self, session: &mut Session, field: &str, noun: &str, done: [&str; 2]) -> Result<()> {
        let (names, changes) = split(&self.arguments);
        if changes.is_empty() && !self.list {
            return Err(CliError::usage(format!("at least one {noun} update is required")));
        }
        let twice: Vec<&str> = changes
            .iter()
            .filter(|(key, value)| value.is_some() && changes.contains(&(key.clone(), None)))
            .map(|(key, _)| key.as_str())
            .collect();
        if !twice.is_empty() {
            return Err(CliError::usage(match field {
                "labels" => "can not both modify and remove a label in the same command".to_owned(),
                _ => format!(
                    "can not both modify and remove the following annotation(s) in the same command: {}",
                    twice.join(", ")
                ),
            }));
        }
        let targets = select(session, &names, &self.files, &self.select).await?;
        if targets.is_empty() {
            return Err(CliError::usage(
                "one or more resources must be specified as <resource> <name> or <resource>/<name>",
            ));
        }
        if targets.iter().any(|target| target.name.is_none()) && !self.all && !self.select.selects() {
            return Err(CliError::usage("resource(s) were provided, but no name was specified"));
        }
        let (found, mut errors) = objects(session, &targets, &self.select).await?;
        for selected in &found {
            if self.list {
                list(session, selected, field, found.len() > 1)?;
            } else if let Err(error) = self.change(session, selected, field, noun, done, &changes).await {
                errors.push(error);
            }
        }
        CliError::collect(errors)
    }

    async fn change(
        &self,
        session: &mut Session,
        selected: &Selected,
        field: &str,
        noun: &str,
        done: [&str; 2],
        changes: &[Change],
    ) -> Result<()> {
        let present = &selected.object["metadata"][field];
        let mut patch = Map::new();
        let mut declared = Vec::new();
        for (key, value) in changes {
            let old = present.get(key).and_then(Value::as_str);
            match (old, value) {
                (Some(old), Some(new)) if old != new && !self.overwrite => {
                    declared.push(format!("'{key}' already has a value ({old})"));
                }
                (None, None) if field == "labels" => session.streams.line(format!("{noun} \"{key}\" not found."))?,
                (old, new) if old != new.as_deref() => {
                    patch.insert(key.clone(), new.clone().map_or(Value::Null, Value::String));
                }
                _ => {}
            }
        }
        if !declared.is_empty() {
            let taken = |text: String| CliError::usage(format!("{text}, and --overwrite is false"));
            return CliError::collect(match field {
                "labels" => declared.into_iter().map(taken).collect(),
                _ => vec![CliError::usage(format!(
                    "--overwrite is false but found the following declared annotation(s): {}",
                    declared.join("; ")
                ))],
            });
        }
        let (object, done_word) = if patch.is_empty() {
            (selected.object.clone(), if noun == "label" { "not labeled" } else { done[0] })
        } else {
            let removes_only = patch.values().all(Value::is_null);
            let mut body = json!({"metadata": {field: patch}});
            if let Some(version) = &self.resource_version {
                body["metadata"]["resourceVersion"] = version.clone().into();
            }
            let object = match self.change.dry_run {
                DryRun::Client => {
                    let mut object = selected.object.clone();
                    quorate_api::patch::merge::apply(&mut object, &body);
                    object
                }
                dry_run => {
                    let (resource, namespace) = (&selected.resource, selected.namespace());
                    session.patch(resource, namespace, selected.name(), &body, PatchType::Merge, dry_run).await?
                }
            };
            (object, done[usize::from(removes_only)])
        };
        self.change.report(session, &selected.resource, &object, done_word)
    }
}

fn list(session: &mut Session, selected: &Selected, field: &str, several: bool) -> Result<()> {
    if several {
        session.streams.line(format!("Listing {field} for {}:", selected.title()))?;
    }
    for (key, value) in selected.object["metadata"][field].as_object().into_iter().flatten() {
        session.streams.line(format!("{key}={}", value.as_str().unwrap_or_default()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_changes_are_distinguished() {
        let words = ["pods", "web-1", "a=b", "c=", "old-", "d=x=y"].map(str::to_owned);
        let (names, changes) = split(&words);
        assert_eq!(names, ["pods", "web-1"]);
        let changes: Vec<(&str, Option<&str>)> = changes.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        assert_eq!(changes, [("a", Some("b")), ("c", Some("")), ("old", None), ("d", Some("x=y"))]);
    }
}
