//! Limits, quotas, priorities, runtimes and the flow of requests.

use std::collections::BTreeSet;

use quorate_api::{FieldError, FieldPath, Quantity, name};
use serde_json::Value;

use super::{Row, row};
use crate::check;
use crate::descriptor::Verb;
use crate::priority::{SYSTEM_CLASSES, SYSTEM_PREFIX};
use crate::table::{Cell, NONE, number, or_none, printed, printed_age, printed_name};
use crate::value::{at, child, int, items, items_mut, set_default, text};

/// Highest priority that a user's class can have.
const MAX_USER_PRIORITY: i64 = 1_000_000_000;
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub(super) fn rows() -> Vec<Row> {
    let flow = "flowcontrol.apiserver.k8s.io";
    vec![
        row("", "ComponentStatus", "componentstatuses")
            .short(&["cs"])
            .cluster()
            .verbs(&[Verb::Get, Verb::List])
            .columns(vec![
                printed_name(),
                printed("Status", Cell::Of(|_| "Unknown".into())),
                printed("Message", Cell::Of(|_| "".into())),
                printed("Error", Cell::Of(|_| "".into())),
            ]),
        row("", "LimitRange", "limitranges")
            .short(&["limits"])
            .creates_on_update()
            .default(default_limits)
            .validate(limits),
        row("", "ResourceQuota", "resourcequotas")
            .short(&["quota"])
            .status()
            .returns_deleted()
            .validate(quota)
            .immutable(&["spec.scopes", "spec.scopeSelector"])
            .columns(vec![
                printed_name(),
                printed("Request", Cell::Of(|object| usage(object, false))),
                printed("Limit", Cell::Of(|object| usage(object, true))),
                printed_age(),
            ]),
        row("scheduling.k8s.io", "PriorityClass", "priorityclasses")
            .short(&["pc"])
            .cluster()
            .generations()
            .default(|object| set_default(object, "preemptionPolicy", "PreemptLowerPriority"))
            .validate(priority)
            .validate_update(|new, old, errors| {
                for field in ["value", "preemptionPolicy"] {
                    if new[field] != old[field] {
                        errors.push(FieldError::forbidden(FieldPath::new(field), "may not be changed in an update."));
                    }
                }
            })
            .columns(vec![
                printed_name(),
                number("Value", Cell::Field("value")),
                printed("Global-Default", Cell::Flag("globalDefault")).of_type("boolean"),
                printed_age(),
                printed("PreemptionPolicy", Cell::Field("preemptionPolicy")),
            ]),
        row("node.k8s.io", "RuntimeClass", "runtimeclasses").cluster().columns(vec![
            printed_name(),
            printed("Handler", Cell::Field("handler")),
            printed_age(),
        ]),
        row(flow, "FlowSchema", "flowschemas")
            .cluster()
            .status()
            .generations()
            .default(|object| {
                let spec = child(object, "spec");
                if int(&spec["matchingPrecedence"]) == 0 {
                    spec["matchingPrecedence"] = 1000.into();
                }
            })
            .validate(flow_schema)
            .columns(vec![
                printed_name(),
                printed("PriorityLevel", Cell::FieldOr("spec.priorityLevelConfiguration.name", NONE)),
                printed("MatchingPrecedence", Cell::Field("spec.matchingPrecedence")),
                printed("DistinguisherMethod", Cell::FieldOr("spec.distinguisherMethod.type", NONE)),
                printed_age(),
                printed("MissingPL", Cell::Of(missing_level)),
            ]),
        row(flow, "PriorityLevelConfiguration", "prioritylevelconfigurations")
            .cluster()
            .status()
            .generations()
            .default(default_level)
            .validate(level)
            .columns(vec![
                printed_name(),
                printed("Type", Cell::Field("spec.type")),
                printed("NominalConcurrencyShares", Cell::FieldOr("spec.limited.nominalConcurrencyShares", NONE)),
                printed("Queues", Cell::FieldOr("spec.limited.limitResponse.queuing.queues", NONE)),
                printed("HandSize", Cell::FieldOr("spec.limited.limitResponse.queuing.handSize", NONE)),
                printed("QueueLengthLimit", Cell::FieldOr("spec.limited.limitResponse.queuing.queueLengthLimit", NONE)),
                printed_age(),
            ]),
    ]
}

fn usage(object: &Value, is_limit: bool) -> Value {
    let hard = at(object, "status.hard").as_object().into_iter().flatten();
    let shown = hard.filter(|(resource, _)| resource.starts_with("limits.") == is_limit);
    let used = at(object, "status.used");
    let shown = shown.map(|(resource, hard)| {
        let used = used.get(resource).and_then(Value::as_str).unwrap_or("0");
        format!("{resource}: {used}/{}", text(hard))
    });
    shown.collect::<Vec<_>>().join(", ").into()
}

/// Parses the quantity at a key; `None` when it is absent. Decoding has checked its form.
fn amount(list: &Value, resource: &str) -> Option<Quantity> {
    list.get(resource).and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok())
}

fn default_limits(object: &mut Value) {
    for item in items_mut(child(object, "spec"), "limits").filter(|item| item["type"] == "Container") {
        for (field, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let given: Vec<(String, Value)> =
                item[source].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            for (resource, value) in given {
                set_default(child(item, field), &resource, value);
            }
        }
    }
}

fn limits(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("limits");
    let mut seen = BTreeSet::new();
    for (index, item) in items(at(object, "spec.limits")).iter().enumerate() {
        let path = path.index(index);
        let kind = text(&item["type"]);
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        } else if !seen.insert(kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        if kind == "Pod" {
            for field in ["default", "defaultRequest"].into_iter().filter(|field| item[*field].is_object()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(path.child(field), detail));
            }
        }
        // Each amount must not exceed the ones after it.
        let order = ["min", "defaultRequest", "default", "max"];
        for (nth, low) in order.iter().enumerate() {
            for (resource, value) in item[*low].as_object().into_iter().flatten() {
                for high in &order[nth + 1..] {
                    let (Some(low_amount), Some(high_amount)) =
                        (amount(&item[*low], resource), amount(&item[*high], resource))
                    else {
                        continue;
                    };
                    if low_amount > high_amount {
                        let (value, other) = (text(value), text(&item[*high][resource.as_str()]));
                        let name = |field: &str| match field {
                            "defaultRequest" => "default request".to_owned(),
                            other => other.to_owned(),
                        };
                        let detail =
                            format!("{} value {value} is greater than {} value {other}", name(low), name(high));
                        errors.push(FieldError::invalid(path.child(low).key(resource), value, detail));
                    }
                }
            }
        }
    }
}

fn quota(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    for (resource, value) in spec["hard"].as_object().into_iter().flatten() {
        let at = path.child("hard").key(resource);
        errors.extend(name::qualified_name(resource).into_iter().map(|p| FieldError::invalid(at.clone(), resource, p)));
        if amount(&spec["hard"], resource).is_some_and(Quantity::is_negative) {
            errors.push(FieldError::invalid(at, value, check::NON_NEGATIVE));
        }
    }
    let scopes = items(&spec["scopes"]);
    for scope in scopes.iter().map(text).filter(|scope| !SCOPES.contains(scope)) {
        errors.push(FieldError::invalid(path.child("scopes"), scopes, format!("unsupported scope: {scope}")));
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.iter().any(|scope| scope == one) && scopes.iter().any(|scope| scope == other) {
            errors.push(FieldError::invalid(path.child("scopes"), scopes, "conflicting scopes"));
        }
    }
}

fn priority(object: &Value, errors: &mut Vec<FieldError>) {
    let (name, value) = (text(at(object, "metadata.name")), int(&object["value"]));
    if name.starts_with(SYSTEM_PREFIX) {
        if !SYSTEM_CLASSES.iter().any(|class| (class.name, class.value) == (name, value)) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: only system priority classes can have this prefix";
            errors.push(FieldError::forbidden(FieldPath::new("metadata").child("name"), detail));
        }
    } else if value > MAX_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}");
        errors.push(FieldError::forbidden(FieldPath::new("value"), detail));
    }
    let policy = object["preemptionPolicy"].as_str();
    check::one_of(policy, &["Never", "PreemptLowerPriority"], FieldPath::new("preemptionPolicy"), errors);
}

fn missing_level(object: &Value) -> Value {
    let conditions = items(at(object, "status.conditions"));
    let dangling = conditions.iter().find(|condition| condition["type"] == "Dangling");
    or_none(dangling.map_or("?", |condition| text(&condition["status"])))
}

fn flow_schema(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let precedence = int(&spec["matchingPrecedence"]);
    if !(1..=10_000).contains(&precedence) {
        let detail = "must be between 1 and 10000, inclusive";
        errors.push(FieldError::invalid(path.child("matchingPrecedence"), precedence, detail));
    }
    let level = path.child("priorityLevelConfiguration").child("name");
    check::reference(text(at(spec, "priorityLevelConfiguration.name")), &level, errors);
}

fn default_level(object: &mut Value) {
    let spec = child(object, "spec");
    if spec["exempt"].is_object() {
        set_default(&mut spec["exempt"], "nominalConcurrencyShares", 0);
        set_default(&mut spec["exempt"], "lendablePercent", 0);
    }
    let Some(limited) = spec.get_mut("limited").filter(|limited| limited.is_object()) else { return };
    set_default(limited, "nominalConcurrencyShares", 30);
    set_default(limited, "lendablePercent", 0);
    let response = limited.get_mut("limitResponse");
    let queuing = response.and_then(|response| response.get_mut("queuing")).filter(|queuing| queuing.is_object());
    let Some(queuing) = queuing else { return };
    for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
        if int(&queuing[field]) == 0 {
            queuing[field] = value.into();
        }
    }
}

fn level(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let kind = text(&spec["type"]);
    check::one_of_if_set(
        Some(kind).filter(|kind| !kind.is_empty()),
        &["Exempt", "Limited"],
        path.child("type"),
        errors,
    );
    if kind == "Limited" && spec["limited"].is_null() {
        errors.push(FieldError::required(path.child("limited"), "must not be empty when type is Limited"));
    }
}
