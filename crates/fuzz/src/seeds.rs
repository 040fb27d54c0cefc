//! The first inputs of the targets, from the sample objects that are checked in for the schema's tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use quorate_api::yaml;
use quorate_schema::{builtin, cbor, decode, protobuf};
use serde_json::{Value, json};

use crate::kinds::{self, KINDS};

/// Writes the inputs into a folder for each target.
///
/// # Errors
/// When the samples cannot be read or an input cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    for (target, inputs) in all()? {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (index, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{index:03}")), input)?;
        }
    }
    Ok(())
}

type Inputs = Vec<Vec<u8>>;

fn all() -> io::Result<Vec<(&'static str, Inputs)>> {
    let objects = samples()?;
    let (mut json, mut yaml, mut cbor, mut protobuf) = (Inputs::new(), Inputs::new(), Inputs::new(), Inputs::new());
    let (mut patches, mut apply) = (Inputs::new(), Inputs::new());
    for object in &objects {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let Some(selector) = kinds::selector(text("apiVersion"), text("kind")) else { continue };
        let ty = builtin().kind(text("apiVersion"), text("kind")).expect("a built-in kind");
        let decoded = decode::value(builtin(), ty, object.clone()).map_err(io::Error::other)?.object;
        json.push(joined(selector, object.to_string()));
        yaml.push(joined(selector, yaml::to_string(object)));
        cbor.push(joined(selector, cbor::encode(object).map_err(io::Error::other)?));
        protobuf.push(protobuf::encode(builtin(), &decoded).map_err(io::Error::other)?);
        patches.extend(patches_of(selector, &decoded));
        apply.extend(applies_of(selector, &decoded));
    }
    yaml.extend(YAML.iter().map(|text| joined(b'B', text)));
    let selectors = SELECTORS.iter().map(|text| text.as_bytes().to_vec()).collect();
    Ok(vec![
        ("json", json),
        ("yaml", yaml),
        ("cbor", cbor),
        ("protobuf", protobuf),
        ("patches", patches),
        ("apply", apply),
        ("selectors", selectors),
    ])
}

fn joined(selector: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    [&[selector], body.as_ref()].concat()
}

/// Returns the objects that are checked in, and a small object of each other kind.
fn samples() -> io::Result<Vec<Value>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths: Vec<PathBuf> = fs::read_dir(crates.join("schema/tests/data"))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &Path| -> io::Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let mut objects = paths.iter().map(|path| read(path)).collect::<io::Result<Vec<_>>>()?;
    // The largest one would slow every run down.
    objects.retain(|object| object.to_string().len() < 16 << 10);
    if let Value::Object(named) = read(&crates.join("registry/testdata/objects.json"))? {
        // Some refer to parts that are written once: the metadata, and the specification of a pod, which is large.
        objects.extend(named.into_values().map(|mut object| {
            object["metadata"] = json!({ "name": "a", "labels": { "app": "a" }, "generation": 1 });
            object
        }));
        objects.retain(|object| !object.to_string().contains("\"PodSpec\""));
    }
    objects.extend(small());
    Ok(objects)
}

/// Objects with the forms of values that the checked-in samples lack.
fn small() -> Vec<Value> {
    let of = |(api_version, kind): (&str, &str), rest: Value| {
        let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "a" } });
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        object
    };
    let container = json!({
        "name": "c", "image": "i", "ports": [{ "containerPort": 80, "protocol": "TCP" }],
        "env": [{ "name": "A", "value": "b" }, { "name": "C", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
        "resources": { "requests": { "cpu": "100m", "memory": "1.5Gi" } },
        "livenessProbe": { "httpGet": { "port": "http", "path": "/" } },
        "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
    });
    let pod = json!({
        "metadata": { "name": "a", "labels": { "app": "a" }, "finalizers": ["a/b", "c/d"] },
        "spec": {
            "containers": [container.clone()], "tolerations": [{ "key": "k", "operator": "Exists", "tolerationSeconds": 3 }],
            "volumes": [{ "name": "v", "configMap": { "name": "m", "defaultMode": 420 } }],
        },
        "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    });
    let spec = pod["spec"].clone();
    let schema = json!({
        "type": "object", "properties": { "spec": { "type": "object", "items": { "type": "string" }, "additionalProperties": true } },
        "items": [{ "type": "integer", "minimum": 1.5, "default": { "a": [1, null] }, "enum": ["a", 1] }],
        "dependencies": { "a": ["b"], "c": { "type": "object" } },
    });
    let mut objects = vec![
        of(KINDS[0], pod),
        of(
            KINDS[6],
            json!({ "spec": { "hard": { "pods": "10", "cpu": "1k" }, "scopeSelector": { "matchExpressions": [{ "operator": "In", "scopeName": "PriorityClass", "values": ["a"] }] } } }),
        ),
        of(
            KINDS[7],
            json!({ "spec": { "replicas": 1, "strategy": { "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": 1 } }, "selector": { "matchLabels": { "app": "a" } }, "template": { "spec": spec } } }),
        ),
        of(KINDS[8], json!({ "data": { "spec": { "x": [1, 2.5, null, "a"] } }, "revision": 3 })),
        of(
            KINDS[9],
            json!({ "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "as", "kind": "A" }, "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }] } }),
        ),
        of(
            KINDS[13],
            json!({ "spec": { "podSelector": {}, "ingress": [{ "ports": [{ "port": "http", "endPort": 90 }], "from": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }] }] } }),
        ),
        of(KINDS[15], json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": "u" }, "dryRun": ["All"] })),
    ];
    if let Some(options) = objects.last_mut().and_then(Value::as_object_mut) {
        options.remove("metadata");
    }
    objects
}

const JSON: u8 = b'c';
const MERGE: u8 = b'd';
const STRATEGIC: u8 = b'e';

/// Returns patches of each format for an object.
fn patches_of(selector: u8, object: &Value) -> Inputs {
    let input =
        |format: u8, patch: Value| format!("{}{}{object}\n{patch}", format as char, selector as char).into_bytes();
    let operations = json!([
        { "op": "test", "path": "/metadata/name", "value": object["metadata"]["name"] },
        { "op": "add", "path": "/metadata/labels", "value": { "a/b": "c" } },
        { "op": "copy", "from": "/metadata/labels", "path": "/metadata/annotations" },
        { "op": "move", "from": "/metadata/labels/a~1b", "path": "/metadata/labels/d" },
        { "op": "replace", "path": "/metadata/labels/d", "value": "e" },
        { "op": "add", "path": "/metadata/finalizers", "value": ["x"] },
        { "op": "add", "path": "/metadata/finalizers/-", "value": "y" },
        { "op": "remove", "path": "/metadata/finalizers/0" },
    ]);
    let fields =
        json!({ "metadata": { "labels": { "a": "b", "app": null }, "finalizers": ["x"] }, "spec": { "replicas": 2 } });
    let lists = json!({
        "metadata": { "finalizers": ["x"], "$deleteFromPrimitiveList/finalizers": ["a/b"], "$setElementOrder/finalizers": ["x", "c/d"] },
        "spec": {
            "$setElementOrder/containers": [{ "name": "d" }, { "name": "c" }],
            "containers": [{ "name": "d", "image": "j" }, { "name": "c", "env": [{ "name": "A", "$patch": "delete" }], "ports": [{ "containerPort": 81 }, { "$patch": "replace" }] }],
            "volumes": [{ "name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {} }],
        },
    });
    vec![input(JSON, operations), input(MERGE, fields.clone()), input(STRATEGIC, fields), input(STRATEGIC, lists)]
}

/// Returns applies of an object to itself, to a changed one, and to nothing.
fn applies_of(selector: u8, object: &Value) -> Inputs {
    let mut bare = object.clone();
    let managed_fields =
        bare.pointer_mut("/metadata").and_then(Value::as_object_mut).and_then(|m| m.remove("managedFields"));
    let managed_fields = managed_fields.unwrap_or_else(|| json!([
        { "manager": "fuzzer", "operation": "Apply", "apiVersion": object["apiVersion"], "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z",
          "fieldsV1": { "f:spec": { "f:replicas": {}, "f:containers": { "k:{\"name\":\"c\"}": { ".": {}, "f:image": {}, "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {} } } } } } } },
        { "manager": "other", "operation": "Update", "apiVersion": object["apiVersion"], "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z",
          "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:app": {} }, "f:finalizers": { ".": {}, "v:\"a/b\"": {} } } } },
    ]));
    let mut changed = bare.clone();
    changed["metadata"]["labels"] = json!({ "app": "b" });
    let input = |force: char, live: &Value, managed_fields: &Value, configuration: &Value| {
        format!("{}{force}{live}\n{managed_fields}\n{configuration}", selector as char).into_bytes()
    };
    vec![
        input('0', &bare, &managed_fields, &bare),
        input('1', &changed, &managed_fields, &bare),
        input('0', &json!({}), &Value::Null, &changed),
    ]
}

const SELECTORS: [&str; 10] = [
    "app=web,tier in (front,back),!canary,cpus>4",
    "a==b,c!=d,e notin (f,),g<5,h",
    "example.com/name in (a)",
    "metadata.name=a,metadata.namespace!=b",
    "spec.nodeName==n1,a=x\\,y\\=z",
    "x in ()",
    "a=,b!=,c in (,)",
    " a , b ",
    "!a,!b",
    "status.phase!=Running",
];

const YAML: [&str; 6] = [
    "base: &base {app: web, tier: front}\nsame: *base\nown:\n  <<: *base\n  app: api\nlist:\n- *base\n- [a, 'b', \"c\\n\"]\n",
    "keep: |+\n  line\n\nstrip: >-\n  one\n  two\n? key\n: !!str 0400\n",
    "octal: 0400\nhex: 0x1F\nfloat: 1.5e3\nyes: on\nnothing: ~\ntime: 12:30:00\nbinary: 0b101\n",
    "--- !!map\na: !!int \"1\"\n...\n---\nb: 2\n",
    "%YAML 1.1\n---\n- - a\n  - b\n-\n  - c\n",
    "a: {b: [c, {d: e}], \"f\": g} # comment\n'h i': j\n",
];
