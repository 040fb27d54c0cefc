//! Equality of pod templates, and the hash that names a template's ReplicaSet.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use crate::naming::hash;
use crate::resource::to_json;

/// Label that distinguishes a deployment's replica sets and their pods.
pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Returns the hash that names the template. `collisions` changes the hash when the name is already taken.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let encoded = comparable(template).to_string();
    let collisions = collisions.map(|count| count.to_string()).unwrap_or_default();
    hash(&[encoded.as_bytes(), collisions.as_bytes()])
}

/// Returns whether two templates describe the same pods. The hash label is set by the controller and is ignored.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a == b || comparable(a) == comparable(b)
}

/// Returns the template as JSON without the hash label and without empty lists, so that empty and absent compare equal.
fn comparable(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
        metadata.creation_timestamp = None;
    }
    let mut json = to_json(&template);
    drop_empty_lists(&mut json);
    // The order of keys must not depend on the features that other crates enable in serde_json.
    json.sort_all_objects();
    json
}

/// Removes empty lists and nulls. Empty objects stay, because `emptyDir: {}` has a meaning.
fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null() && field.as_array().is_none_or(|list| !list.is_empty()));
            fields.values_mut().for_each(drop_empty_lists);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty_lists),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).expect("a template")
    }

    #[test]
    fn the_hash_label_and_empty_fields_do_not_count() {
        let spec = json!({"containers": [{"name": "c", "image": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]});
        let written = template(json!({"metadata": {"labels": {"app": "web"}}, "spec": spec}));
        let mut labelled = written.clone();
        let labels = labelled.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(POD_TEMPLATE_HASH.to_owned(), "abc".to_owned());
        labelled.spec.get_or_insert_default().tolerations = Some(Vec::new());
        assert!(same_template(&written, &labelled));
        assert_eq!(template_hash(&written, None), template_hash(&labelled, None));
        assert_ne!(template_hash(&written, None), template_hash(&written, Some(1)));

        let mut other = written.clone();
        other.spec.get_or_insert_default().volumes.get_or_insert_default()[0].empty_dir = None;
        assert!(!same_template(&written, &other));
    }
}
