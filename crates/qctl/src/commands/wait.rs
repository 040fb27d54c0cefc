//! `wait`: waits until objects meet a condition, have a value, exist or are gone.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::error::{CliError, Result};
use crate::jsonpath::{JsonPath, text_of};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Target, objects, select};
use crate::session::Session;
use crate::watch::{Followed, follow};

use super::delete::until_gone;

/// Wait until objects meet a condition
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    select: SelectFlags,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], delete or create
    #[arg(long = "for")]
    goal: String,
    /// Maximum time to wait; 0 checks once, a negative time waits for a week
    #[arg(long, default_value = "30s", value_parser = Timeout::parse, allow_hyphen_values = true)]
    timeout: Timeout,
}

/// The meaning of kubectl's `--timeout`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Timeout {
    CheckOnce,
    Within(Duration),
}

impl Timeout {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn parse(text: &str) -> Result<Self, String> {
        let (negative, amount) = text.strip_prefix('-').map_or((false, text), |amount| (true, amount));
        let amount = crate::duration::parse(amount).map_err(|error| error.replace(amount, text))?;
        Ok(match (amount.is_zero(), negative) {
            (true, _) => Timeout::CheckOnce,
            (false, true) => Timeout::Within(Self::WEEK),
            (false, false) => Timeout::Within(amount),
        })
    }
}

#[derive(Debug, PartialEq)]
enum Goal {
    Delete,
    Create,
    Condition { name: String, status: String },
    Path { path: JsonPath, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> Result<Self> {
        let (kind, argument) = text.split_once('=').unwrap_or((text, ""));
        match kind.to_ascii_lowercase().as_str() {
            "delete" => Ok(Goal::Delete),
            "create" => Ok(Goal::Create),
            "condition" if !argument.is_empty() => {
                let (name, status) = argument.split_once('=').unwrap_or((argument, "true"));
                Ok(Goal::Condition { name: name.to_owned(), status: status.to_owned() })
            }
            "jsonpath" if !argument.is_empty() => {
                let end = argument.rfind('}').map_or_else(|| argument.find('=').unwrap_or(argument.len()), |at| at + 1);
                let (path, rest) = argument.split_at(end);
                let path = JsonPath::relaxed(path.trim_matches(['\'', '"']))
                    .map_err(|error| CliError::usage(error.to_string()))?;
                Ok(Goal::Path {
                    path,
                    value: rest.strip_prefix('=').map(|value| value.trim_matches(['\'', '"']).to_owned()),
                })
            }
            _ => Err(CliError::usage(format!(
                "unrecognized condition: \"{text}\"; use condition=NAME, jsonpath={{PATH}}=VALUE, delete or create"
            ))),
        }
    }

    fn met(&self, object: &Value) -> bool {
        match self {
            Goal::Delete => false,
            Goal::Create => true,
            Goal::Condition { name, status } => {
                // A condition that was observed for an older generation does not count.
                let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
                object["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                    condition["type"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name))
                        && condition["status"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(status))
                        && condition["observedGeneration"].as_i64().is_none_or(|observed| observed >= generation)
                })
            }
            Goal::Path { path, value } => {
                let selected = path.select(object);
                match value {
                    Some(value) => !selected.is_empty() && selected.iter().all(|found| text_of(found) == *value),
                    None => !selected.is_empty(),
                }
            }
        }
    }
}

impl Wait {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let goal = Goal::parse(&self.goal)?;
        let targets = select(session, &self.arguments, &self.files, &self.select).await?;
        if targets.is_empty() {
            return Err(CliError::usage("You must provide one or more resources by argument or filename."));
        }
        if targets.iter().any(|target| target.name.is_none()) && !self.all && !self.select.selects() {
            return Err(CliError::usage("resource(s) were provided, but no name was specified"));
        }
        let begun = Instant::now();
        let named = self.expand_names(session, targets, &goal).await?;
        if named.is_empty() && goal != Goal::Delete {
            return Err(CliError::usage("no matching resources found"));
        }
        let mut errors = Vec::new();
        for target in &named {
            let name = target.name.as_deref().unwrap_or_default();
            let (met, failure) = match self.timeout {
                Timeout::CheckOnce => (is_met(session, target, name, &goal).await, "condition not met for"),
                Timeout::Within(time) => (
                    wait_for(session, target, name, &goal, begun + time).await,
                    "timed out waiting for the condition on",
                ),
            };
            match met {
                Ok(true) => {
                    session.streams.line(format!("{}/{name} condition met", target.resource.kind_name()))?;
                    session.streams.flush()?;
                }
                Ok(false) => errors.push(CliError::usage(format!("{failure} {}/{name}", target.resource.plural))),
                Err(error) => errors.push(error),
            }
        }
        CliError::collect(errors)
    }

    async fn expand_names(&self, session: &Session, targets: Vec<Target>, goal: &Goal) -> Result<Vec<Target>> {
        let mut named = Vec::new();
        for target in targets {
            if let Some(name) = &target.name {
                if *goal != Goal::Create {
                    let found = session.get(&target.resource, target.namespace.as_deref(), name).await;
                    match found {
                        // The object is gone already, so there is nothing to wait for or to report.
                        Err(error) if *goal == Goal::Delete && error.is_not_found() => continue,
                        // A missing object is an error at once.
                        found => drop(found?),
                    }
                }
                named.push(target);
                continue;
            }
            let (found, errors) = objects(session, std::slice::from_ref(&target), &self.select).await?;
            CliError::collect(errors)?;
            named.extend(found.iter().map(|found| Target {
                resource: target.resource.clone(),
                namespace: found.namespace().map(str::to_owned),
                name: Some(found.name().to_owned()),
                manifest: None,
            }));
        }
        Ok(named)
    }
}

/// Whether the goal is met now.
async fn is_met(session: &Session, target: &Target, name: &str, goal: &Goal) -> Result<bool> {
    let object = session.find(&target.resource, target.namespace.as_deref(), name).await?;
    Ok(match (goal, object) {
        (Goal::Delete, object) => object.is_none(),
        (goal, object) => object.is_some_and(|object| goal.met(&object)),
    })
}

async fn wait_for(session: &Session, target: &Target, name: &str, goal: &Goal, deadline: Instant) -> Result<bool> {
    let (resource, namespace) = (&*target.resource, target.namespace.as_deref());
    if *goal == Goal::Delete {
        return until_gone(session, resource, namespace, name, None, Some(deadline)).await;
    }
    follow(&session.transport, Followed { resource, namespace, name }, Some(deadline), |object| {
        Ok(if object.is_some_and(|object| goal.met(object)) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn met(goal: &str, object: &Value) -> bool {
        Goal::parse(goal).expect("a goal").met(object)
    }

    #[test]
    fn zero_checks_once_and_a_negative_time_is_a_week() {
        let parse = |text: &str| Timeout::parse(text).expect("a timeout");
        assert_eq!(
            (parse("0"), parse("0s"), parse("-0s")),
            (Timeout::CheckOnce, Timeout::CheckOnce, Timeout::CheckOnce)
        );
        assert_eq!(parse("30s"), Timeout::Within(Duration::from_secs(30)));
        assert_eq!((parse("-1s"), parse("-5m")), (Timeout::Within(Timeout::WEEK), Timeout::Within(Timeout::WEEK)));
        assert!(Timeout::parse("--1s").is_err());
        assert!(Timeout::parse("-soon").expect_err("no number").contains("\"-soon\""));
    }

    #[test]
    fn goals_are_tested_on_objects() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "n": 3, "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}, {"type": "Bad", "status": "False"}]}});
        assert!(met("condition=ready", &pod));
        assert!(met("condition=Bad=false", &pod));
        assert!(!met("condition=Bad", &pod));
        assert!(!met("condition=Old", &pod), "the condition is of an older generation");
        assert!(met("jsonpath={.status.phase}=Running", &pod));
        assert!(met("jsonpath='{.status.n}'=3", &pod));
        assert!(met("jsonpath={.status.phase}", &pod));
        assert!(!met("jsonpath={.status.none}", &pod));
        assert!(met(r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}=True"#, &pod));
        assert!(Goal::parse("happiness").is_err());
    }
}
