//! Namespace: Active when created, Terminating once deleted, until its `spec.finalizers` are gone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::name;
use serde_json::{Value, json};

use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{age_cell, column, name_cell, name_column};
use crate::value::{carry_over, child, items, text};

/// The label that lets selectors match a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// Undoes every change except those of the finalizers.
pub fn keep_only_finalizers(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    carry_over(child(&mut kept, "spec"), &new["spec"], "finalizers");
    *new = kept;
}

pub struct Namespace;

impl Kind for Namespace {
    type Object = core::Namespace;

    const HAS_STATUS: bool = true;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("Status"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name_cell(object), object["status"]["phase"].clone(), age_cell(object, now)]
    }

    fn check_name(name: &str) -> Vec<String> {
        name::dns1123_label(name)
    }

    fn default(object: &mut Value) {
        let name = text(&object["metadata"]["name"]).to_owned();
        if !name.is_empty() {
            child(child(object, "metadata"), "labels")[NAME_LABEL] = Value::from(name);
        }
    }

    fn prepare_create(object: &mut Value) {
        // Defaulting ran before a generated name was known, so it runs again.
        Namespace::default(object);
        let finalizers = child(child(object, "spec"), "finalizers");
        let present = items(finalizers).iter().any(|finalizer| finalizer == FINALIZER);
        match finalizers {
            Value::Array(list) if !present => list.push(Value::from(FINALIZER)),
            Value::Array(_) => {}
            other => *other = json!([FINALIZER]),
        }
        object["status"] = json!({"phase": "Active"});
    }

    fn prepare_update(new: &mut Value, old: &Value) {
        carry_over(child(new, "spec"), &old["spec"], "finalizers");
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &["status.phase"]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.phase", text(&object["status"]["phase"]).to_owned())]
    }

    fn prepare_delete(object: &mut Value) {
        child(object, "status")["phase"] = Value::from("Terminating");
    }

    fn is_held(object: &Value) -> bool {
        !items(&object["spec"]["finalizers"]).is_empty()
    }
}
