//! Comparison with Kubernetes' own data, which lies beside the repository in `../shared/k8s`. Without it the tests say so
//! and pass; the cases in `tests/data` run always.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quorate_schema::openapi::{self, Version};
use quorate_schema::{Model, TypeId, builtin, decode, protobuf};
use serde_json::Value;
use xtask::{read_json, reference};

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

fn type_of(model: &Model, path: &Path, object: &Value) -> TypeId {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let found = model.kind(text("apiVersion"), text("kind"));
    // `WatchEvent` alone carries no type.
    found
        .or_else(|| model.kind("v1", "WatchEvent").filter(|_| path.to_string_lossy().contains("WatchEvent")))
        .unwrap_or_else(|| panic!("{}: no such kind", path.display()))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Decodes each object of `folder` as JSON, and takes it through protobuf.
fn check_objects(folder: &Path) -> usize {
    let model = builtin();
    let paths = files(folder, ".json");
    for path in &paths {
        let bytes = fs::read(path).expect("a file");
        let object = without_nulls(read_json(path));
        let ty = type_of(model, path, &object);
        let decoded = decode::json(model, ty, &bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(decoded.strict, [], "{}", path.display());
        // A map may hold a zero time, which is null; elsewhere nulls are gone.
        let decoded = decoded.object;
        assert_eq!(without_nulls(decoded.clone()), object, "{}", path.display());
        let message =
            protobuf::encode_message(model, ty, &decoded).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let back = protobuf::decode_message(model, ty, &message).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(back, without_type_meta(decoded.clone()), "{}", path.display());
        let golden = path.with_extension("pb");
        if golden.exists() && object.get("kind").is_some() {
            let golden = fs::read(&golden).expect("a file");
            let encoded = protobuf::encode(model, &decoded).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(first_difference(&encoded, &golden), None, "{}", path.display());
        }
    }
    paths.len()
}

fn first_difference(ours: &[u8], theirs: &[u8]) -> Option<String> {
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
    let at = at.or_else(|| (ours.len() != theirs.len()).then(|| ours.len().min(theirs.len())))?;
    let part =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[at.saturating_sub(40)..bytes.len().min(at + 40)]).into_owned();
    Some(format!("at {at}: ours {:?}, theirs {:?}", part(ours), part(theirs)))
}

/// Removes `apiVersion` and `kind` of the object itself and of the claims in a StatefulSet, whose messages have neither.
fn without_type_meta(mut object: Value) -> Value {
    let remove = |object: &mut Value| {
        if let Value::Object(fields) = object {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
    };
    remove(&mut object);
    for claim in object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        remove(claim);
    }
    object
}

#[test]
fn checked_in_objects_pass_both_ways() {
    assert_eq!(check_objects(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")), 8);
}

#[test]
fn each_object_of_kubernetes_passes_both_ways() {
    let Some(reference) = reference() else { return };
    assert!(check_objects(&reference.join("objects")) > 80);
}

#[test]
fn components_are_those_of_kubernetes() {
    let Some(reference) = reference() else { return };
    let model = builtin();
    let by_name: BTreeMap<String, TypeId> =
        model.types().filter(|(_, ty)| !ty.is_hidden).map(|(id, ty)| (openapi::component_name(ty), id)).collect();
    let mut seen = BTreeSet::new();
    for path in files(&reference.join("openapi-v3"), "_openapi.json") {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let document = name.trim_end_matches("_openapi.json").trim_start_matches("apis__").trim_start_matches("api__");
        let document = document.replace("__", "/");
        let Value::Object(schemas) = read_json(&path)["components"]["schemas"].take() else { continue };
        for (component, expected) in schemas {
            let id = *by_name.get(&component).unwrap_or_else(|| panic!("no type for {component}"));
            assert_eq!(openapi::component(model, id, Version::V3, &document), expected, "{component} in {document}");
            seen.insert(component);
        }
    }
    assert!(seen.len() > 500, "{} components", seen.len());
    let unseen: Vec<&String> = by_name.keys().filter(|name| !seen.contains(*name)).collect();
    assert_eq!(unseen, Vec::<&String>::new(), "components that Kubernetes does not have");
}
