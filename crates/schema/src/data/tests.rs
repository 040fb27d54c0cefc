use serde_json::json;

use super::*;
use crate::model::{ListType, MapType, SchemaOr};

fn pod() -> TypeId {
    builtin().kind("v1", "Pod").expect("a pod")
}

#[test]
fn the_embedded_data_loads() {
    let model = load().expect("the data is well-formed");
    assert!(model.types().count() > 600, "{} types", model.types().count());
}

#[test]
fn types_are_found_by_kind_and_by_name() {
    let model = builtin();
    assert_eq!(model.named("core.v1.Pod"), Some(pod()));
    assert_eq!(model.get(pod()).qualified_name(), "core.v1.Pod");
    for (api_version, kind) in [
        ("apps/v1", "Deployment"),
        ("autoscaling/v1", "Scale"),
        ("policy/v1", "Eviction"),
        ("v1", "Binding"),
        ("v1", "List"),
        ("v1", "Status"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("apps/v1", "DeleteOptions"),
        ("v1", "DeleteOptions"),
        ("meta.k8s.io/v1", "DeleteOptions"),
        ("batch/v1", "WatchEvent"),
        ("meta.k8s.io/v1", "Table"),
        ("meta.k8s.io/v1", "PartialObjectMetadata"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apiregistration.k8s.io/v1", "APIService"),
        ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList"),
        ("admission.k8s.io/v1", "AdmissionReview"),
    ] {
        assert!(model.kind(api_version, kind).is_some(), "{api_version} {kind}");
    }
    assert_eq!(model.kind("v1", "Deployment"), None);
    assert_eq!(model.kind("v1", "Container"), None);
}

#[test]
fn fields_know_their_facts() {
    let model = builtin();
    let field = |path: &[&str]| model.field_at(pod(), path).expect("a field");
    assert_eq!(field(&["kind"]).number, 0);
    assert_eq!(field(&["spec"]).number, 2);
    let ports = field(&["spec", "containers", "ports"]);
    assert_eq!(ports.list_type(), &ListType::Map(vec!["containerPort".into(), "protocol".into()]));
    assert_eq!(ports.patch.as_ref().and_then(|patch| patch.key.as_deref()), Some("containerPort"));
    assert_eq!(field(&["spec", "containers", "ports", "protocol"]).default(), Some(&json!("TCP")));
    let volumes = field(&["spec", "volumes"]).patch.as_ref().expect("a strategy");
    assert!(volumes.merges && volumes.retains_keys);
    assert_eq!(field(&["spec", "nodeSelector"]).shape.map_type, MapType::Atomic);
    // Fields of inline structs are the object's own.
    assert!(field(&["spec", "volumes", "emptyDir"]).is_pointer);
    assert_eq!(field(&["spec", "volumes", "name"]).number, 1);
    assert!(field(&["spec", "restartPolicy"]).shape.rules.as_ref().is_some_and(|rules| rules.enumeration.len() == 3));
    assert!(!field(&["spec", "hostNetwork"]).is_pointer);
    assert!(field(&["spec", "hostUsers"]).is_pointer);
    assert!(field(&["spec", "containers"]).is_always_written && field(&["spec", "containers"]).is_required);
}

#[test]
fn schemas_of_schemas_refer_to_themselves() {
    let model = builtin();
    let schema = model.named("apiextensions.v1.JSONSchemaProps").expect("a type");
    let of = |name: &str| model.get(schema).field(name).expect("a field").shape.kind.clone();
    let Kind::SchemaOr(additional) = of("additionalProperties") else { panic!("a schema or a bool") };
    assert_eq!(model.get(additional).form, Form::SchemaOr(SchemaOr::Bool));
    assert_eq!(of("properties").object(), Some(schema));
    assert!(matches!(of("default"), Kind::Raw(_)));
    assert!(matches!(of("x-kubernetes-preserve-unknown-fields"), Kind::Bool));
    assert!(matches!(of("$ref"), Kind::String));
}

/// Each type of a package with a protobuf form has numbers for all its fields.
#[test]
fn every_field_has_a_number() {
    let model = builtin();
    let without_form = ["Table", "TableColumnDefinition", "TableRow", "TableRowCondition", "TypeMeta"];
    for (_, ty) in model.types().filter(|(_, ty)| ty.form == Form::Object && ty.package != "version") {
        if ty.package == "meta.v1" && without_form.contains(&ty.name.as_ref()) {
            continue;
        }
        assert!(ty.wire.is_sorted_by(|a, b| a.number < b.number), "{}", ty.qualified_name());
        let own = ty.wire.iter().filter(|entry| matches!(entry.target, WireTarget::Field(_))).count();
        let inlined = ty.wire.iter().filter_map(|entry| match entry.target {
            WireTarget::Inline(id) => Some(model.get(id).fields.len()),
            WireTarget::Field(_) => None,
        });
        let type_meta = if ty.is_typed { 2 } else { 0 };
        assert_eq!(own + inlined.sum::<usize>() + type_meta, ty.fields.len(), "{}", ty.qualified_name());
    }
}

#[test]
fn documentation_is_found_where_it_is_declared() {
    let model = builtin();
    let pod = model.get(pod());
    assert!(documentation(pod, None).is_some_and(|text| text.starts_with("Pod is a collection of containers")));
    let kind = pod.field("kind").expect("a field");
    assert!(documentation(model.get(kind.declared_by), Some("kind")).is_some_and(|text| text.starts_with("Kind is")));
    assert_eq!(unescape(r"a\nb\\n\tc"), "a\nb\\n\tc");
}
