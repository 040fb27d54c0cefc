//! The objects that extend the API: webhooks, policies, custom resource definitions and API services. They are stored;
//! the API server does not act on them yet.

use std::collections::BTreeSet;

use quorate_api::{FieldError, FieldPath, name};
use serde_json::{Value, json};

use super::rbac::path_segment;
use super::{Row, row};
use crate::check;
use crate::table::{Cell, number, printed, printed_age, printed_name};
use crate::value::{at, child, int, items, items_mut, set_default, set_default_text, text};

const EXTENSIONS: &[&str] = &["api-extensions"];
const GROUP: &str = "admissionregistration.k8s.io";

pub(super) fn rows() -> Vec<Row> {
    let extension = |kind, resource| row(GROUP, kind, resource).category(EXTENSIONS).cluster().generations();
    let bindings = || {
        vec![
            printed_name(),
            printed("PolicyName", Cell::Field("spec.policyName")),
            printed("ParamRef", Cell::Of(param_ref)),
            printed_age(),
        ]
    };
    let policies = |name, count| {
        vec![
            printed_name(),
            number(name, Cell::Count(count)),
            printed("ParamKind", Cell::Of(param_kind)),
            printed_age(),
        ]
    };
    let hooks = || vec![printed_name(), number("Webhooks", Cell::Count("webhooks")), printed_age()];
    vec![
        extension("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .default(|object| default_policy(object, true))
            .validate(policy)
            .columns(policies("Mutations", "spec.mutations")),
        extension("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .default(default_binding)
            .columns(bindings()),
        extension("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .default(|object| default_webhooks(object, true))
            .validate(webhooks)
            .columns(hooks()),
        extension("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .status()
            .default(|object| default_policy(object, false))
            .validate(policy)
            .columns(policies("Validations", "spec.validations")),
        extension("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .default(default_binding)
            .columns(bindings()),
        extension("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .default(|object| default_webhooks(object, false))
            .validate(webhooks)
            .columns(hooks()),
        row("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions")
            .short(&["crd", "crds"])
            .category(EXTENSIONS)
            .cluster()
            .status()
            .generations()
            .default(default_definition)
            .validate(definition)
            .immutable(&["spec.group", "spec.names.plural", "spec.scope"]),
        row("apiregistration.k8s.io", "APIService", "apiservices")
            .category(EXTENSIONS)
            .cluster()
            .status()
            .named_by(path_segment)
            .validate(api_service)
            .columns(vec![
                printed_name(),
                printed("Service", Cell::Of(service)),
                printed("Available", Cell::Of(available)),
                printed_age(),
            ]),
    ]
}

fn param_ref(object: &Value) -> Value {
    let reference = at(object, "spec.paramRef");
    match (text(&reference["namespace"]), text(&reference["name"])) {
        _ if reference.is_null() => "<unset>".into(),
        (_, "") => "*".into(),
        ("", name) => name.into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}

fn param_kind(object: &Value) -> Value {
    let kind = at(object, "spec.paramKind");
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"])).into()
}

fn service(object: &Value) -> Value {
    let service = at(object, "spec.service");
    if service.is_null() {
        "Local".into()
    } else {
        format!("{}/{}", text(&service["namespace"]), text(&service["name"])).into()
    }
}

fn available(object: &Value) -> Value {
    let conditions = items(at(object, "status.conditions"));
    match conditions.iter().find(|condition| condition["type"] == "Available") {
        None => "Unknown".into(),
        Some(condition) if condition["status"] == "True" => "True".into(),
        Some(condition) => format!("{} ({})", text(&condition["status"]), text(&condition["reason"])).into(),
    }
}

/// Sets the defaults of what a policy or webhook matches.
fn default_match(matched: &mut Value) {
    set_default_text(matched, "matchPolicy", "Equivalent");
    child(matched, "namespaceSelector");
    child(matched, "objectSelector");
    for list in ["resourceRules", "excludeResourceRules"] {
        items_mut(matched, list).for_each(|rule| set_default_text(rule, "scope", "*"));
    }
}

fn default_binding(object: &mut Value) {
    if let Some(matched) = child(object, "spec").get_mut("matchResources") {
        default_match(matched);
    }
}

fn default_policy(object: &mut Value, is_mutating: bool) {
    let spec = child(object, "spec");
    set_default_text(spec, "failurePolicy", "Fail");
    if is_mutating {
        set_default_text(spec, "reinvocationPolicy", "Never");
    }
    default_match(child(spec, "matchConstraints"));
}

fn default_webhooks(object: &mut Value, is_mutating: bool) {
    for hook in items_mut(object, "webhooks") {
        set_default_text(hook, "failurePolicy", "Fail");
        set_default_text(hook, "matchPolicy", "Equivalent");
        set_default(hook, "timeoutSeconds", 10);
        child(hook, "namespaceSelector");
        child(hook, "objectSelector");
        if is_mutating {
            set_default_text(hook, "reinvocationPolicy", "Never");
        }
        items_mut(hook, "rules").for_each(|rule| set_default_text(rule, "scope", "*"));
        if let Some(service) = at_mut(hook, &["clientConfig", "service"]) {
            set_default(service, "port", 443);
        }
    }
}

fn webhooks(object: &Value, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, hook) in items(&object["webhooks"]).iter().enumerate() {
        let path = FieldPath::new("webhooks").index(index);
        let name = text(&hook["name"]);
        check::required_name(name, name::dns1123_subdomain, &path.child("name"), errors);
        if !name.is_empty() && name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(FieldError::invalid(path.child("name"), name, detail));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        let effects = hook["sideEffects"].as_str();
        check::one_of(effects, &["None", "NoneOnDryRun"], path.child("sideEffects"), errors);
        check::one_of(hook["failurePolicy"].as_str(), &["Fail", "Ignore"], path.child("failurePolicy"), errors);
        check::one_of(hook["matchPolicy"].as_str(), &["Equivalent", "Exact"], path.child("matchPolicy"), errors);
        let timeout = int(&hook["timeoutSeconds"]);
        if !(1..=30).contains(&timeout) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(path.child("timeoutSeconds"), timeout, detail));
        }
        let versions = items(&hook["admissionReviewVersions"]);
        let at = path.child("admissionReviewVersions");
        if versions.is_empty() {
            errors.push(FieldError::required(at, "must specify one of v1, v1beta1"));
        } else if !versions.iter().any(|version| matches!(text(version), "v1" | "v1beta1")) {
            let detail = "must include at least one of v1, v1beta1";
            errors.push(FieldError::invalid(at, versions, detail));
        }
        let config = &hook["clientConfig"];
        if config["url"].is_string() == config["service"].is_object() {
            let detail = "exactly one of url or service is required";
            errors.push(FieldError::required(path.child("clientConfig"), detail));
        }
    }
}

fn policy(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    check::one_of(spec["failurePolicy"].as_str(), &["Fail", "Ignore"], path.child("failurePolicy"), errors);
    if items(at(spec, "matchConstraints.resourceRules")).is_empty() {
        errors.push(FieldError::required(path.child("matchConstraints").child("resourceRules"), ""));
    }
}

fn default_definition(object: &mut Value) {
    let spec = child(object, "spec");
    let names = child(spec, "names");
    let kind = text(&names["kind"]).to_owned();
    if !kind.is_empty() {
        set_default_text(names, "singular", &kind.to_lowercase());
        set_default_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = child(spec, "conversion");
    set_default_text(conversion, "strategy", "None");
    if let Some(service) = at_mut(conversion, &["webhook", "clientConfig", "service"]) {
        set_default(service, "port", 443);
    }
}

fn at_mut<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, field| value.get_mut(field).filter(|value| value.is_object()))
}

fn definition(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let (group, names) = (text(&spec["group"]), &spec["names"]);
    let expected = format!("{}.{group}", text(&names["plural"]));
    let name = text(at(object, "metadata.name"));
    if name != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(FieldPath::new("metadata").child("name"), name, detail));
    }
    check::required_name(group, name::dns1123_subdomain, &path.child("group"), errors);
    check::one_of(spec["scope"].as_str(), &["Cluster", "Namespaced"], path.child("scope"), errors);
    for field in ["plural", "singular"] {
        check::required_name(text(&names[field]), name::dns1035_label, &path.child("names").child(field), errors);
    }
    for field in ["kind", "listKind"] {
        if text(&names[field]).is_empty() {
            errors.push(FieldError::required(path.child("names").child(field), ""));
        }
    }
    let versions = items(&spec["versions"]);
    let at = path.child("versions");
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(at.clone(), json!(versions.len()), detail));
    }
    for (index, version) in versions.iter().enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            let detail = "schemas are required";
            errors.push(FieldError::required(at.index(index).child("schema").child("openAPIV3Schema"), detail));
        }
    }
}

fn api_service(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let (group, version) = (text(&spec["group"]), text(&spec["version"]));
    let expected = format!("{version}.{group}");
    let name = text(at(object, "metadata.name"));
    if name != expected {
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{expected}\"");
        errors.push(FieldError::invalid(FieldPath::new("metadata").child("name"), name, detail));
    }
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let priority = int(&spec[field]);
        if !(1..=max).contains(&priority) {
            let detail = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(path.child(field), priority, detail));
        }
    }
}
