//! `edit`: opens an object in the user's editor and sends the changes as a patch. After a failure the editor reopens
//! with the error.

use std::io::Write;
use std::path::Path;

use quorate_api::GroupVersionKind;
use quorate_api::patch::{PatchError, diff};
use serde_json::Value;

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::{self, FileFlags};
use crate::output;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::verbs::PatchType;

/// Edit objects in $EDITOR
#[derive(Debug, clap::Args)]
pub struct Edit {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
}

const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n";

enum Edited {
    Unchanged,
    Empty,
    Object(Box<Value>),
    /// The text is not an object. The message is shown to the user.
    Unreadable(String),
}

impl Edit {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let flags = SelectFlags::default();
        let targets = select(session, &self.arguments, &self.files, &flags).await?;
        if targets.is_empty() || targets.iter().any(|target| target.name.is_none()) {
            return Err(CliError::usage("must specify the object to edit: TYPE NAME or TYPE/NAME"));
        }
        let (found, errors) = objects(session, &targets, &flags).await?;
        CliError::collect(errors)?;
        for selected in &found {
            edit(session, selected).await?;
        }
        Ok(())
    }
}

async fn edit(session: &mut Session, selected: &Selected) -> Result<()> {
    let mut shown = selected.object.clone();
    if let Some(metadata) = shown["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let original = output::yaml(&shown);
    let mut text = format!("{HEADER}{original}");
    let mut last_failure: Option<(String, CliError)> = None;
    loop {
        let edited = in_editor(&text)?;
        let body = without_comments(&edited);
        if let Some((before, failure)) = last_failure.take()
            && before == body
        {
            let kept = keep(&edited)?;
            session.streams.note(failure.report())?;
            session.streams.note(format!("A copy of your changes has been stored to \"{kept}\""))?;
            return Err(CliError::usage("Edit cancelled, no valid changes were saved."));
        }
        let object = match read(&body, &original) {
            Edited::Empty => return session.streams.note("Edit cancelled, saved file was empty."),
            Edited::Unchanged => return session.streams.note("Edit cancelled, no changes made."),
            Edited::Object(object) => object,
            Edited::Unreadable(reason) => {
                text = with_failure(&reason, &body);
                last_failure = Some((body, CliError::Usage(reason)));
                continue;
            }
        };
        match save(session, selected, &shown, &object).await {
            Ok(true) => return session.streams.line(format!("{} edited", selected.title())),
            Ok(false) => return session.streams.line(format!("{} skipped", selected.title())),
            Err(error @ CliError::Server(_)) => {
                text = with_failure(&error.report(), &body);
                last_failure = Some((body, error));
            }
            Err(error) => {
                let kept = keep(&edited)?;
                session.streams.note(format!("A copy of your changes has been stored to \"{kept}\""))?;
                return Err(error);
            }
        }
    }
}

fn read(body: &str, original: &str) -> Edited {
    if body.trim().is_empty() {
        return Edited::Empty;
    }
    if body.trim_end() == original.trim_end() {
        return Edited::Unchanged;
    }
    match manifest::parse(body, "edited-file") {
        Ok(mut objects) if objects.len() == 1 => Edited::Object(Box::new(objects.remove(0).object)),
        Ok(_) => Edited::Unreadable("the file must hold one object".to_owned()),
        Err(error) => Edited::Unreadable(error.to_string()),
    }
}

/// Sends the changes. Returns `false` if there are none.
async fn save(session: &Session, selected: &Selected, shown: &Value, edited: &Value) -> Result<bool> {
    for field in ["apiVersion", "kind"] {
        if edited[field] != shown[field] {
            return Err(CliError::usage(format!("{field} cannot be changed by edit")));
        }
    }
    if edited["metadata"]["name"] != shown["metadata"]["name"] {
        return Err(CliError::usage("the name of the object cannot be changed by edit"));
    }
    let resource = &selected.resource;
    let kind = GroupVersionKind {
        group: resource.group.clone().into(),
        version: resource.version.clone().into(),
        kind: resource.kind.clone().into(),
    };
    // The patch is the difference between the shown object and the edited one, so removed fields are deleted.
    let (patch, patch_type) = match diff::strategic(&kind, shown, edited, shown) {
        Err(PatchError::NoStrategies) => (diff::merge(shown, edited, shown), PatchType::Merge),
        strategic => (strategic, PatchType::Strategic),
    };
    let patch = patch.map_err(|error| CliError::usage(error.to_string()))?;
    if patch.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(false);
    }
    let dry_run = ChangeFlags::default().dry_run;
    session.patch(resource, selected.namespace(), selected.name(), &patch, patch_type, dry_run).await?;
    Ok(true)
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn with_failure(reason: &str, body: &str) -> String {
    let lines: String = reason.lines().map(|line| format!("# {line}\n")).collect();
    format!("{HEADER}{lines}#\n{body}")
}

/// Opens the text in `$KUBE_EDITOR`, `$EDITOR` or `vi` and returns what was saved.
fn in_editor(text: &str) -> Result<String> {
    let editor = ["KUBE_EDITOR", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    let failed = |source| CliError::io("the file for the editor", source);
    let mut file = tempfile::Builder::new().prefix("qctl-edit-").suffix(".yaml").tempfile().map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
    // The variable may have arguments (`code --wait`), so the shell runs it.
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("qctl-edit")
        .arg(file.path())
        .status()
        .map_err(|source| CliError::io(format!("unable to launch the editor \"{editor}\""), source))?;
    if !status.success() {
        return Err(CliError::usage(format!(
            "there was a problem with the editor \"{editor}\" ({status}); set $EDITOR"
        )));
    }
    std::fs::read_to_string(file.path()).map_err(failed)
}

fn keep(text: &str) -> Result<String> {
    let failed = |source| CliError::io("keeping a copy of the changes", source);
    let mut file = tempfile::Builder::new().prefix("qctl-edit-").suffix(".yaml").tempfile().map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let (_, path) = file.keep().map_err(|error| failed(error.error))?;
    Ok(display(&path))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
