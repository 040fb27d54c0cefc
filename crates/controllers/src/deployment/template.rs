//! When two pod templates are the same, and the hash that names the ReplicaSet of one.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use crate::naming::hash;
use crate::resource::to_json;

/// The label that tells a deployment's replica sets, and their pods, apart.
pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Names the template; `collisions` makes another name when one is taken by something else.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let encoded = comparable(template).to_string();
    let collisions = collisions.map(|count| count.to_string()).unwrap_or_default();
    hash(&[encoded.as_bytes(), collisions.as_bytes()])
}

/// Whether two templates make the same pods: the hash label is the controller's own and does not count.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a == b || comparable(a) == comparable(b)
}

/// The template as JSON without the hash label, where what is empty and what is absent look the same.
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
    // Key order must not depend on which features other crates enable in serde_json.
    json.sort_all_objects();
    json
}

/// Empty objects stay: `emptyDir: {}` says something.
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
