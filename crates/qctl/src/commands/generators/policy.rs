//! Namespaces, and what limits and ranks the pods in them.

use quorate_api::quantity::Quantity;
use quorate_api::selector::{LabelSelector, Operator};
use serde_json::{Map, Value, json};

use super::{Generate, new, number_or_text};
use crate::error::{CliError, Result};
use crate::session::Session;

/// A namespace has no flags of its own.
#[derive(Debug, clap::Args)]
pub struct Namespace {}

impl Generate for Namespace {
    const NAMESPACED: bool = false;

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        Ok(new("v1", "Namespace", name))
    }
}

/// The flags of a PodDisruptionBudget.
#[derive(Debug, clap::Args)]
pub struct PodDisruptionBudget {
    /// Number or percentage of the pods that must stay available
    #[arg(long)]
    min_available: Option<String>,
    /// Number or percentage of the pods that may be unavailable
    #[arg(long)]
    max_unavailable: Option<String>,
    /// Label selector of the pods
    #[arg(long)]
    selector: Option<String>,
}

impl Generate for PodDisruptionBudget {
    const FAILURE: &'static str = "failed to create poddisruptionbudgets: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let Some(selector) = self.selector.as_deref().filter(|selector| !selector.is_empty()) else {
            return Err(CliError::usage("a selector must be specified"));
        };
        let (flag, field, text) = match (&self.min_available, &self.max_unavailable) {
            (Some(min), None) => ("min-available", "minAvailable", min),
            (None, Some(max)) => ("max-unavailable", "maxUnavailable", max),
            (None, None) => {
                return Err(CliError::usage("one of min-available or max-unavailable must be specified"));
            }
            (Some(_), Some(_)) => {
                return Err(CliError::usage("min-available and max-unavailable cannot be both specified"));
            }
        };
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CliError::usage(format!("invalid format specified for {flag}")));
        }
        let mut object = new("policy/v1", "PodDisruptionBudget", name);
        object["spec"] = json!({field: number_or_text(text), "selector": label_selector(selector)?});
        Ok(object)
    }
}

/// Returns the object form of a label selector.
fn label_selector(text: &str) -> Result<Value> {
    let selector = LabelSelector::parse(text).map_err(|error| CliError::usage(error.to_string()))?;
    let (mut labels, mut expressions) = (Map::new(), Vec::new());
    for requirement in selector.requirements() {
        let values: Vec<&str> = requirement.values().collect();
        let operator = match requirement.operator() {
            Operator::Equals | Operator::DoubleEquals => {
                labels.insert(requirement.key().to_owned(), values.concat().into());
                continue;
            }
            Operator::NotEquals | Operator::NotIn => "NotIn",
            Operator::In => "In",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => {
                return Err(CliError::usage(format!("\"{text}\": > and < are not for selectors of objects")));
            }
        };
        let mut expression = json!({"key": requirement.key(), "operator": operator});
        if !values.is_empty() {
            expression["values"] = values.into();
        }
        expressions.push(expression);
    }
    let mut object = json!({});
    if !labels.is_empty() {
        object["matchLabels"] = labels.into();
    }
    if !expressions.is_empty() {
        object["matchExpressions"] = expressions.into();
    }
    Ok(object)
}

/// The flags of a PriorityClass.
#[derive(Debug, clap::Args)]
pub struct PriorityClass {
    /// The priority of the class's pods
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    value: i32,
    /// Use the class for pods without one
    #[arg(long)]
    global_default: bool,
    /// When the class is to be used
    #[arg(long)]
    description: Option<String>,
    /// Whether the class's pods evict others
    #[arg(long, default_value = "PreemptLowerPriority")]
    preemption_policy: String,
}

impl Generate for PriorityClass {
    const FAILURE: &'static str = "failed to create priorityclass: ";
    const NAMESPACED: bool = false;

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let mut object = new("scheduling.k8s.io/v1", "PriorityClass", name);
        object["value"] = self.value.into();
        object["preemptionPolicy"] = self.preemption_policy.clone().into();
        if self.global_default {
            object["globalDefault"] = true.into();
        }
        if let Some(description) = &self.description {
            object["description"] = description.clone().into();
        }
        Ok(object)
    }
}

/// The flags of a ResourceQuota.
#[derive(Debug, clap::Args)]
pub struct ResourceQuota {
    /// RESOURCE=QUANTITY,…
    #[arg(long, value_delimiter = ',')]
    hard: Vec<String>,
    /// Scopes that an object must match
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
}

impl Generate for ResourceQuota {
    const FAILURE: &'static str = "failed to create quota: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let mut hard = Map::new();
        for text in &self.hard {
            let syntax = || CliError::usage(format!("Invalid argument syntax {text}, expected <resource>=<value>"));
            let (resource, quantity) =
                text.split_once('=').filter(|(_, quantity)| !quantity.contains('=')).ok_or_else(syntax)?;
            Quantity::parse(quantity).map_err(|error| CliError::usage(format!("{text}: {error}")))?;
            hard.insert(resource.to_owned(), quantity.into());
        }
        if self.scopes.iter().any(String::is_empty) {
            return Err(CliError::usage("invalid resource quota scope \"\""));
        }
        let mut object = new("v1", "ResourceQuota", name);
        object["spec"] = json!({});
        if !hard.is_empty() {
            object["spec"]["hard"] = hard.into();
        }
        if !self.scopes.is_empty() {
            object["spec"]["scopes"] = json!(self.scopes);
        }
        Ok(object)
    }
}
