//! Roles and their bindings. They are stored; permissions do not come from them yet.

use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use super::{Row, row};
use crate::check;
use crate::table::{Cell, printed, printed_age, printed_name};
use crate::value::{child, equal, items, items_mut, set_default_text, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn rows() -> Vec<Row> {
    let binding = |kind, resource| {
        row(GROUP, kind, resource)
            .named_by(path_segment)
            .creates_on_update()
            .default(default_binding)
            .validate_update(binding_update)
            .columns(vec![
                printed_name(),
                printed("Role", Cell::Of(role_of)),
                printed_age(),
                printed("Users", Cell::Of(|object| subjects(object, "User"))).wide(),
                printed("Groups", Cell::Of(|object| subjects(object, "Group"))).wide(),
                printed("ServiceAccounts", Cell::Of(|object| subjects(object, "ServiceAccount"))).wide(),
            ])
    };
    let role = |kind, resource| row(GROUP, kind, resource).named_by(path_segment).creates_on_update();
    vec![
        binding("ClusterRoleBinding", "clusterrolebindings")
            .cluster()
            .validate(|object, errors| validate_binding(object, &["ClusterRole"], errors)),
        role("ClusterRole", "clusterroles").cluster().validate(|object, errors| {
            rules(object, true, errors);
            let selectors = items(&object["aggregationRule"]["clusterRoleSelectors"]);
            let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
            if object["aggregationRule"].is_object() && selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required(path.clone(), detail));
            }
            for (index, one) in selectors.iter().enumerate() {
                super::networking::selector(one, &path.index(index), errors);
            }
        }),
        binding("RoleBinding", "rolebindings")
            .validate(|object, errors| validate_binding(object, &["ClusterRole", "Role"], errors)),
        role("Role", "roles").validate(|object, errors| rules(object, false, errors)),
    ]
}

/// Checks a name that may hold anything that can stand in a path, such as `system:node`.
pub fn path_segment(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    let unwanted = ['/', '%'].into_iter().filter(|c| name.contains(*c));
    unwanted.map(|c| format!("may not contain '{c}'")).collect()
}

fn role_of(object: &Value) -> Value {
    format!("{}/{}", text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"])).into()
}

fn subjects(object: &Value, kind: &str) -> Value {
    let named = items(&object["subjects"]).iter().filter(|subject| subject["kind"] == kind);
    let shown = named.map(|subject| match kind {
        "ServiceAccount" => format!("{}/{}", text(&subject["namespace"]), text(&subject["name"])),
        _ => text(&subject["name"]).to_owned(),
    });
    shown.collect::<Vec<_>>().join(", ").into()
}

fn default_binding(object: &mut Value) {
    set_default_text(child(object, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(object, "subjects") {
        if matches!(text(&subject["kind"]), "User" | "Group") {
            set_default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn rules(object: &Value, is_cluster: bool, errors: &mut Vec<FieldError>) {
    for (index, rule) in items(&object["rules"]).iter().enumerate() {
        let path = FieldPath::new("rules").index(index);
        let has = |field: &str| !items(&rule[field]).is_empty();
        if has("nonResourceURLs") {
            let at = path.child("nonResourceURLs");
            if !is_cluster {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at.clone(), &rule["nonResourceURLs"], detail));
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(at, &rule["nonResourceURLs"], detail));
            }
            continue;
        }
        if !has("apiGroups") {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(path.child("apiGroups"), detail));
        }
        if !has("resources") {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(path.child("resources"), detail));
        }
    }
}

fn validate_binding(object: &Value, kinds: &[&str], errors: &mut Vec<FieldError>) {
    let (path, role) = (FieldPath::new("roleRef"), &object["roleRef"]);
    if role["apiGroup"] != GROUP {
        errors.push(FieldError::not_supported(path.child("apiGroup"), &role["apiGroup"], &[GROUP]));
    }
    if !kinds.contains(&text(&role["kind"])) {
        errors.push(FieldError::not_supported(path.child("kind"), &role["kind"], kinds));
    }
    check::required_name(text(&role["name"]), path_segment, &path.child("name"), errors);
    for (index, subject) in items(&object["subjects"]).iter().enumerate() {
        let path = FieldPath::new("subjects").index(index);
        if text(&subject["name"]).is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        let group = text(&subject["apiGroup"]);
        let expected = match text(&subject["kind"]) {
            "ServiceAccount" => {
                if text(&subject["namespace"]).is_empty() {
                    errors.push(FieldError::required(path.child("namespace"), ""));
                }
                ""
            }
            "User" | "Group" => GROUP,
            kind => {
                let known = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(path.child("kind"), kind, &known));
                continue;
            }
        };
        if group != expected {
            errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[expected]));
        }
    }
}

fn binding_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if !equal(&new["roleRef"], &old["roleRef"]) {
        errors.push(FieldError::invalid(FieldPath::new("roleRef"), &new["roleRef"], "cannot change roleRef"));
    }
}
