//! `set image`: changes the images of containers.

use serde_json::{Value, json};

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};

/// Change parts of objects
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The images of containers
    Image(Image),
}

#[derive(Debug, clap::Args)]
struct Image {
    /// TYPE NAME… or TYPE/NAME…, then CONTAINER=IMAGE (`*` for all containers)
    #[arg(value_name = "TYPE[/NAME] CONTAINER=IMAGE")]
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
}

impl Set {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let Part::Image(image) = self.part;
        image.run(session).await
    }
}

impl Image {
    async fn run(self, session: &mut Session) -> Result<()> {
        let (images, names): (Vec<&String>, Vec<&String>) = self.arguments.iter().partition(|word| word.contains('='));
        let images: Vec<(&str, &str)> = images.iter().filter_map(|image| image.split_once('=')).collect();
        if images.is_empty() {
            return Err(CliError::usage("at least one image update is required: CONTAINER=IMAGE"));
        }
        let names: Vec<String> = names.into_iter().cloned().collect();
        let targets = select(session, &names, &self.files, &self.select).await?;
        if targets.is_empty()
            || (targets.iter().any(|target| target.name.is_none()) && !self.all && !self.select.selects())
        {
            return Err(CliError::usage(
                "one or more resources must be specified as <resource> <name> or <resource>/<name>",
            ));
        }
        let (found, mut errors) = objects(session, &targets, &self.select).await?;
        for selected in &found {
            if let Err(error) = self.set(session, selected, &images).await {
                errors.push(error);
            }
        }
        CliError::collect(errors)
    }

    async fn set(&self, session: &mut Session, selected: &Selected, images: &[(&str, &str)]) -> Result<()> {
        let (template, pod) = if selected.resource.is("", "Pod") {
            (selected.object["spec"].clone(), true)
        } else {
            (selected.object["spec"]["template"]["spec"].clone(), false)
        };
        let spec = changed_images(&template, images)
            .map_err(|reason| CliError::usage(format!("{reason} in {}", selected.title())))?;
        let Some(spec) = spec else { return Ok(()) };
        let patch = if pod { json!({"spec": spec}) } else { json!({"spec": {"template": {"spec": spec}}}) };
        let object = match self.change.dry_run {
            DryRun::Client => selected.object.clone(),
            dry_run => {
                let (resource, namespace) = (&selected.resource, selected.namespace());
                session.patch(resource, namespace, selected.name(), &patch, PatchType::Strategic, dry_run).await?
            }
        };
        self.change.report(session, &selected.resource, &object, "image updated")
    }
}

/// Returns the patch of a pod's spec, or `None` if the containers have these images already.
fn changed_images(spec: &Value, images: &[(&str, &str)]) -> Result<Option<Value>, String> {
    let mut patch = json!({});
    for (wanted, image) in images {
        let mut known = false;
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default();
                if *wanted != "*" && *wanted != name {
                    continue;
                }
                known = true;
                if container["image"] != *image {
                    if patch[list].is_null() {
                        patch[list] = json!([]);
                    }
                    if let Some(items) = patch[list].as_array_mut() {
                        items.push(json!({"name": name, "image": image}));
                    }
                }
            }
        }
        if !known {
            return Err(format!("unable to find container named \"{wanted}\""));
        }
    }
    Ok(patch.as_object().is_some_and(|fields| !fields.is_empty()).then_some(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_that_change_are_in_the_patch() {
        let spec = json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}], "initContainers": [{"name": "i", "image": "z:1"}]});
        assert_eq!(
            changed_images(&spec, &[("a", "x:2"), ("b", "y:1")]),
            Ok(Some(json!({"containers": [{"name": "a", "image": "x:2"}]})))
        );
        assert_eq!(changed_images(&spec, &[("a", "x:1")]), Ok(None));
        let all = changed_images(&spec, &[("*", "n")]).expect("known").expect("a change");
        assert_eq!(all["initContainers"], json!([{"name": "i", "image": "n"}]));
        assert!(changed_images(&spec, &[("c", "n")]).is_err());
    }
}
