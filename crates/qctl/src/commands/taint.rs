//! `taint`: `KEY=VALUE:EFFECT` sets a taint of nodes; `KEY-` and `KEY:EFFECT-` remove taints.

use serde_json::{Value, json};

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};

/// Set and remove the taints of nodes
#[derive(Debug, clap::Args)]
pub struct Taint {
    /// node NAME…, then KEY=VALUE:EFFECT to set and KEY[:EFFECT]- to remove
    #[arg(value_name = "NODE|TAINT")]
    arguments: Vec<String>,
    #[command(flatten)]
    select: SelectFlags,
    #[command(flatten)]
    change: ChangeFlags,
    /// All nodes
    #[arg(long)]
    all: bool,
    /// Allow existing values to be replaced
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set { key: String, value: String, effect: String },
    Remove { key: String, effect: Option<String> },
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn parse(argument: &str) -> Result<Option<Change>> {
    let checked = |effect: &str| {
        if EFFECTS.contains(&effect) {
            Ok(effect.to_owned())
        } else {
            Err(CliError::usage(format!(
                "invalid taint effect: {effect}, unsupported taint effect; use {}",
                EFFECTS.join(", ")
            )))
        }
    };
    if let Some(rest) = argument.strip_suffix('-')
        && (rest.contains(':') || !rest.contains('='))
    {
        let (name, effect) = rest.split_once(':').map_or((rest, None), |(name, effect)| (name, Some(effect)));
        let key = name.split('=').next().unwrap_or(name).to_owned();
        return Ok(Some(Change::Remove { key, effect: effect.map(checked).transpose()? }));
    }
    let Some((name, effect)) = argument.rsplit_once(':') else {
        return if argument.contains('=') {
            Err(CliError::usage(format!("invalid taint spec: {argument}; write KEY=VALUE:EFFECT")))
        } else {
            Ok(None)
        };
    };
    let (key, value) = name.split_once('=').unwrap_or((name, ""));
    Ok(Some(Change::Set { key: key.to_owned(), value: value.to_owned(), effect: checked(effect)? }))
}

impl Taint {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let (mut names, mut changes) = (Vec::new(), Vec::new());
        for (index, argument) in self.arguments.iter().enumerate() {
            match parse(argument).map(|change| change.filter(|_| index > 0))? {
                Some(change) => changes.push(change),
                None => names.push(argument.clone()),
            }
        }
        if changes.is_empty() {
            return Err(CliError::usage("at least one taint update is required"));
        }
        let targets = select(session, &names, &FileFlags::default(), &self.select).await?;
        if targets.iter().any(|target| target.resource.kind != "Node") {
            return Err(CliError::usage("invalid resource type, only node(s) is supported"));
        }
        if targets.is_empty()
            || (targets.iter().any(|target| target.name.is_none()) && !self.all && !self.select.selects())
        {
            return Err(CliError::usage("at least one node is required: `qctl taint nodes NAME KEY=VALUE:EFFECT`"));
        }
        let (found, mut errors) = objects(session, &targets, &self.select).await?;
        for node in &found {
            if let Err(error) = self.change(session, node, &changes).await {
                errors.push(error);
            }
        }
        CliError::collect(errors)
    }

    async fn change(&self, session: &mut Session, node: &Selected, changes: &[Change]) -> Result<()> {
        let present = node.object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let taints = updated(present, changes, self.overwrite, node.name())?;
        // Taints are a list that is written as a whole, so the version guards against another writer.
        let patch = json!({
            "metadata": {"resourceVersion": node.object["metadata"]["resourceVersion"]},
            "spec": {"taints": taints},
        });
        let object = match self.change.dry_run {
            DryRun::Client => node.object.clone(),
            dry_run => session.patch(&node.resource, None, node.name(), &patch, PatchType::Merge, dry_run).await?,
        };
        let removes = changes.iter().all(|change| matches!(change, Change::Remove { .. }));
        self.change.report(session, &node.resource, &object, if removes { "untainted" } else { "tainted" })
    }
}

fn updated(mut taints: Vec<Value>, changes: &[Change], overwrite: bool, node: &str) -> Result<Vec<Value>> {
    for change in changes {
        match change {
            Change::Remove { key, effect } => {
                let before = taints.len();
                taints.retain(|taint| {
                    taint["key"] != key.as_str()
                        || effect.as_ref().is_some_and(|effect| taint["effect"] != effect.as_str())
                });
                if taints.len() == before {
                    return Err(CliError::usage(format!("taint \"{key}\" not found")));
                }
            }
            Change::Set { key, value, effect } => {
                let new = if value.is_empty() {
                    json!({"key": key, "effect": effect})
                } else {
                    json!({"key": key, "value": value, "effect": effect})
                };
                let same =
                    taints.iter_mut().find(|taint| taint["key"] == key.as_str() && taint["effect"] == effect.as_str());
                match same {
                    Some(_) if !overwrite => {
                        return Err(CliError::usage(format!(
                            "node {node} already has {key} taint(s) with same effect(s) and --overwrite is false"
                        )));
                    }
                    Some(taint) => *taint = new,
                    None => taints.push(new),
                }
            }
        }
    }
    Ok(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_set_and_removed() {
        let changes: Vec<Change> = ["a=b:NoSchedule", "c:NoExecute", "old-"]
            .iter()
            .map(|text| parse(text).expect("valid").expect("a change"))
            .collect();
        let taints =
            updated(vec![json!({"key": "old", "effect": "NoSchedule"})], &changes, false, "n").expect("possible");
        assert_eq!(
            taints,
            [json!({"key": "a", "value": "b", "effect": "NoSchedule"}), json!({"key": "c", "effect": "NoExecute"})]
        );
        assert!(updated(taints, &changes[..1], false, "n").is_err(), "existing taints are kept without --overwrite");
    }

    #[test]
    fn malformed_taints_are_refused() {
        assert!(parse("a=b").is_err());
        assert!(parse("a=b:Sometimes").is_err());
        assert_eq!(parse("node-1").expect("a name"), None);
        assert_eq!(
            parse("a:NoExecute-").expect("valid"),
            Some(Change::Remove { key: "a".into(), effect: Some("NoExecute".into()) })
        );
    }
}
