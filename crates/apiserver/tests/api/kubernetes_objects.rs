//! Takes objects with every field set through the server in each format, for every kind.
//!
//! The values of such objects are not valid together, so no client could create them. They are put into the store
//! instead, and updates then keep them, because an update is not refused for errors that the stored object already has.

use std::collections::BTreeSet;
use std::fs;

use http::Method;
use quorate_mvcc::{Op, PutRequest, Txn};
use quorate_registry::{Descriptor, Scope, Subresource, Verb};
use quorate_schema::model::{Kind, Shape};
use quorate_schema::{Model, TypeId, protobuf};
use serde_json::{Map, Value, json};
use xtask::{read_json, reference};

use crate::harness::{Client, Server};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The annotation that each write changes.
const WRITER: &str = "example.com/writer";

/// Returns an object with every field of a type, on all levels. A type is empty within itself, as the schema of a custom
/// resource within another one, because it would have no end. `outer` are the types around.
fn filled(model: &Model, ty: TypeId, outer: &mut Vec<TypeId>) -> Value {
    if outer.contains(&ty) {
        return json!({});
    }
    outer.push(ty);
    let fields = model.get(ty).fields.iter();
    let object = fields.map(|field| (field.name.clone().into_owned(), fill(model, &field.shape, outer))).collect();
    outer.pop();
    Value::Object(object)
}

fn fill(model: &Model, shape: &Shape, outer: &mut Vec<TypeId>) -> Value {
    match &shape.kind {
        Kind::Any | Kind::Raw(_) | Kind::SchemaOr(_) => json!({}),
        Kind::Bool => true.into(),
        Kind::Int32 | Kind::Int64 | Kind::IntOrString => 1.into(),
        Kind::Double => 1.5.into(),
        Kind::String => "x".into(),
        Kind::Bytes => "eA==".into(),
        Kind::Time => "2024-02-29T12:00:00Z".into(),
        Kind::MicroTime => "2024-02-29T12:00:00.000000Z".into(),
        Kind::Quantity => "1".into(),
        Kind::Strings => json!(["x"]),
        Kind::Object(inner) => filled(model, *inner, outer),
        Kind::List(list) => vec![fill(model, &list.item, outer)].into(),
        Kind::Map(value) => Value::Object(Map::from_iter([("k".to_owned(), fill(model, value, outer))])),
    }
}

/// Replaces the few values that an update would change or refuse even though they are stored.
fn make_acceptable(object: &mut Value) {
    match object["kind"].as_str() {
        Some("Pod") => {
            // Admission adds a toleration for each of these taints if there is none.
            let tolerated = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute" });
            let tolerations = object["spec"]["tolerations"].as_array_mut().expect("tolerations");
            tolerations.extend(["not-ready", "unreachable"].map(|key| tolerated(&format!("node.kubernetes.io/{key}"))));
        }
        Some("Service") => {
            // The addresses are allocated, and these fields depend on one another.
            let spec = object["spec"].as_object_mut().expect("a spec");
            let values = json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.50"],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            });
            spec.extend(values.as_object().cloned().expect("fields"));
        }
        Some("StatefulSet") => {
            // Protobuf has no place for the type of a claim.
            for claim in object["spec"]["volumeClaimTemplates"].as_array_mut().expect("claims") {
                claim["apiVersion"] = "v1".into();
                claim["kind"] = "PersistentVolumeClaim".into();
            }
        }
        _ => {}
    }
}

/// Returns a kind's object as the store would hold it.
fn stored(row: &Descriptor, mut object: Value) -> Value {
    object["apiVersion"] = row.kind.api_version().into();
    object["kind"] = row.kind.kind.as_ref().into();
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    // The server sets the first and keeps none of the others.
    for field in ["resourceVersion", "selfLink", "managedFields"] {
        metadata.remove(field);
    }
    if row.scope == Scope::Cluster {
        metadata.remove("namespace");
    }
    // Kinds count generations by different rules, of which their own tests know.
    metadata.remove("generation");
    metadata.insert("annotations".to_owned(), json!({ WRITER: "nobody" }));
    make_acceptable(&mut object);
    row.default(&mut object);
    object
}

/// Returns the kinds whose objects are stored.
fn kept() -> Vec<Descriptor> {
    quorate_registry::builtin().into_iter().filter(|row| row.answer.is_none()).collect()
}

fn metadata<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

async fn store(server: &Server, row: &Descriptor, object: &Value) {
    let group = if row.kind.group.is_empty() { "core" } else { &*row.kind.group };
    let place = match row.scope {
        Scope::Namespaced => format!("{}/", metadata(object, "namespace")),
        Scope::Cluster => String::new(),
    };
    let key = format!("/registry/{group}/{}/{place}{}", row.resource.resource, metadata(object, "name"));
    let put = Op::Put(PutRequest { key: key.into(), value: object.to_string().into(), ..PutRequest::default() });
    let txn = Txn { compare: Vec::new(), success: vec![put], failure: Vec::new() };
    server.api.store().txn(txn).await.expect("stored");
}

fn path_of(row: &Descriptor, object: &Value) -> String {
    let root = if row.kind.group.is_empty() { "/api" } else { "/apis" };
    let place = match row.scope {
        Scope::Namespaced => format!("/namespaces/{}", metadata(object, "namespace")),
        Scope::Cluster => String::new(),
    };
    format!("{root}/{}{place}/{}/{}", row.kind.api_version(), row.resource.resource, metadata(object, "name"))
}

/// Returns an object without its version and its generation.
fn unversioned(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    metadata.remove("resourceVersion").expect("a version");
    metadata.remove("generation");
    object
}

/// Names the first difference between two values by its path.
fn difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        _ if ours == theirs => None,
        (Value::Object(mine), Value::Object(other)) => {
            let name = mine.keys().chain(other.keys()).find(|name| mine.get(*name) != other.get(*name))?;
            let found = difference(&format!("{path}.{name}"), &ours[name], &theirs[name]);
            found.or_else(|| Some(format!("{path}.{name} is null on one side and absent on the other")))
        }
        (Value::Array(mine), Value::Array(other)) if mine.len() == other.len() => {
            let index = (0..mine.len()).find(|index| mine[*index] != other[*index])?;
            difference(&format!("{path}[{index}]"), &mine[index], &other[index])
        }
        _ => Some(format!("{path} is {ours} instead of {theirs}")),
    }
}

fn writer_of(object: &Value) -> String {
    object["metadata"]["annotations"][WRITER].as_str().expect("an annotation").to_owned()
}

/// Writes the object in each format, to itself and to its status, and reads it back as YAML after each write. Returns the
/// first loss.
async fn loss(server: &Server, admin: &Client, row: &Descriptor, object: Value) -> Option<String> {
    let mut expected = stored(row, object);
    store(server, row, &expected).await;
    let object_path = path_of(row, &expected);
    let mut latest = admin.get(&object_path).await.expect(200);
    let mut as_yaml = admin.get_as(&object_path, YAML).await.text();
    let mut loss = difference(&object_path, &unversioned(latest.clone()), &expected);
    let status = row.has(Subresource::Status).then(|| format!("{object_path}/status"));
    let paths = std::iter::once(object_path.clone()).chain(status).filter(|_| row.verbs.contains(&Verb::Update));
    for path in paths {
        for format in [JSON, YAML, PROTOBUF] {
            let writer = format!("{path} {format}");
            let former = writer_of(&latest);
            latest["metadata"]["annotations"][WRITER] = writer.as_str().into();
            let body = match format {
                JSON => latest.to_string().into_bytes(),
                YAML => as_yaml.replacen(&former, &writer, 1).into_bytes(),
                _ => protobuf::encode(row.schema.model(), &latest).expect("protobuf"),
            };
            let answer = admin.request(Method::PUT, &path, &[("content-type", format)], body).await;
            if answer.code != 200 {
                return Some(format!("{writer}: {}", answer.text()));
            }
            latest = answer.json();
            as_yaml = admin.get_as(&object_path, YAML).await.text();
            expected["metadata"]["annotations"][WRITER] = writer.as_str().into();
            let read = quorate_api::yaml::value(&as_yaml).expect("YAML");
            for seen in [latest.clone(), read] {
                loss = loss.or_else(|| difference(&writer, &unversioned(seen), &expected));
            }
        }
    }
    loss
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_with_every_field_of_their_type_come_back_whole() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut losses = Vec::new();
    for row in kept() {
        let object = filled(row.schema.model(), row.schema.ty(), &mut Vec::new());
        losses.extend(loss(&server, &admin, &row, object).await);
    }
    assert!(losses.is_empty(), "{}", losses.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_complete_objects_come_back_whole() {
    let Some(folder) = reference() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let rows = kept();
    let mut left: BTreeSet<String> = rows.iter().map(|row| row.kind.kind.to_string()).collect();
    let mut losses = Vec::new();
    for entry in fs::read_dir(folder.join("objects")).expect("a folder") {
        let object = read_json(&entry.expect("an entry").path());
        let is_of =
            |row: &&Descriptor| object["apiVersion"] == row.kind.api_version() && object["kind"] == *row.kind.kind;
        let Some(row) = rows.iter().find(is_of) else { continue };
        losses.extend(loss(&server, &admin, row, object).await);
        left.remove(&*row.kind.kind);
    }
    assert!(losses.is_empty(), "{}", losses.join("\n"));
    // Kubernetes' test data have no objects of these kinds.
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["APIService", "CustomResourceDefinition"]);
}
