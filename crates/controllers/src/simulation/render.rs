//! Plans as text, for snapshots.

use std::fmt::Write;

use serde_json::Value;

use crate::plan::{Action, Guard, Plan, Target};

/// Renders the plan, one action after the other, with the written objects as JSON.
pub(crate) fn render(plan: &Plan) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        write_action(&mut text, action, 0);
    }
    if let Some(after) = plan.requeue_after {
        writeln!(text, "requeue after {after:?}").expect("a string");
    }
    if text.is_empty() { "nothing\n".to_owned() } else { text }
}

fn write_action(text: &mut String, action: &Action, depth: usize) {
    let (line, body) = match action {
        Action::Create { resource, object, .. } => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            (format!("create {} {name}", resource.group_resource()), Some(object.clone()))
        }
        Action::Update { target, subresource, object } => {
            let part = subresource.map(|part| format!("/{part}")).unwrap_or_default();
            let body = if *subresource == Some("status") { object["status"].clone() } else { object.clone() };
            (format!("update {}{part}", at(target)), Some(body))
        }
        Action::Patch { target, patch, .. } => (format!("patch {}", at(target)), Some(patch.clone())),
        Action::Delete { target, uid, grace_period_seconds, propagation, guards, .. } => {
            let mut line = format!("delete {} uid {}", at(target), uid.as_deref().unwrap_or("any"));
            if let Some(grace) = grace_period_seconds {
                write!(line, " grace {grace}").expect("a string");
            }
            if let Some(propagation) = propagation {
                write!(line, " {propagation}").expect("a string");
            }
            for guard in guards {
                match guard {
                    Guard::Absent { key, uid } => write!(line, " while {key} has not uid {uid}"),
                    Guard::Unchanged { key, revision } => write!(line, " while {key} is at revision {revision}"),
                }
                .expect("a string");
            }
            (line, None)
        }
        Action::Batch(actions) => {
            writeln!(text, "{}at once:", "  ".repeat(depth)).expect("a string");
            for action in actions {
                write_action(text, action, depth + 1);
            }
            return;
        }
        Action::Sequence(actions) => {
            writeln!(text, "{}in order:", "  ".repeat(depth)).expect("a string");
            for action in actions {
                write_action(text, action, depth + 1);
            }
            return;
        }
        Action::Event { regarding, event_type, reason, message } => {
            let kind = regarding["kind"].as_str().unwrap_or_default();
            (format!("event {event_type:?} on {kind}: {reason}: {message}"), None)
        }
    };
    let indent = "  ".repeat(depth);
    writeln!(text, "{indent}{line}").expect("a string");
    if let Some(body) = body {
        for line in pretty(&body).lines() {
            writeln!(text, "{indent}  {line}").expect("a string");
        }
    }
}

fn at(target: &Target) -> String {
    format!("{} {}", target.resource.group_resource(), target.name)
}

fn pretty(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    serde_json::to_string_pretty(&sorted).expect("JSON")
}
