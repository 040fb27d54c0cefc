#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use quorate_schema::protobuf::wire::{Reader, Wire};
use xtask::{read_json, reference};

use super::resource::{KindName, Subresource};
use super::*;
use crate::pipeline::patch;
use crate::representation::{MEDIA_TYPES, STREAM_MEDIA_TYPES};

/// Resources whose deletion returns the object in Kubernetes, which discovery does not tell.
const RETURN_DELETED: [&str; 16] = [
    "csidrivers",
    "csinodes",
    "deviceclasses",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourcequotas",
    "resourceslices",
    "serviceaccounts",
    "services",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
];
/// Parameters that Kubernetes has and this server does not support.
const WITHOUT_PARAMETERS: [&str; 2] = ["ignoreStoreReadErrorWithClusterBreakingPotential", "shardSelector"];
/// Kubernetes' own documents that this server has no counterpart of.
const WITHOUT_DOCUMENTS: [&str; 4] =
    ["logs", "openid/v1/jwks", "apis/internal.apiserver.k8s.io", "apis/storagemigration.k8s.io"];

/// Reads the files of a folder by the paths of their documents, such as `apis/apps/v1`.
fn documents(folder: &Path, end: &str) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(end)?.replace("__", "/");
            Some((name, read_json(&path)))
        })
        .collect()
}

/// Returns the resources of the stable versions, as Kubernetes' discovery has them.
fn kubernetes(folder: &Path) -> Vec<Resource> {
    let mut resources = Vec::new();
    for (path, document) in documents(&folder.join("discovery"), ".json") {
        let group_version = document["groupVersion"].as_str().unwrap_or_default();
        let (group, version) = group_version.rsplit_once('/').unwrap_or(("", group_version));
        if document["kind"] != "APIResourceList" || version.contains("alpha") || version.contains("beta") {
            continue;
        }
        let text = |row: &Value, name: &str| row[name].as_str().map(str::to_owned);
        let verbs = |row: &Value| serde_json::from_value(row["verbs"].clone()).expect("verbs");
        let kind = |row: &Value| KindName {
            group: text(row, "group").unwrap_or_else(|| group.to_owned()),
            version: text(row, "version").unwrap_or_else(|| version.to_owned()),
            kind: text(row, "kind").expect("a kind"),
        };
        let rows = document["resources"].as_array().expect("rows");
        for row in rows {
            let name = text(row, "name").expect("a name");
            if name.contains('/') {
                continue;
            }
            let own = format!("{name}/");
            let subresources = rows.iter().filter_map(|sub| {
                let name = sub["name"].as_str()?.strip_prefix(&own)?.to_owned();
                Some(Subresource { name, kind: kind(sub), verbs: verbs(sub) })
            });
            let own = kind(row);
            resources.push(Resource {
                list_kind: format!("{}List", own.kind),
                is_namespaced: row["namespaced"] == true,
                returns_deleted: RETURN_DELETED.contains(&name.as_str()),
                verbs: verbs(row),
                subresources: subresources.collect(),
                kind: own,
                name,
            });
        }
        assert!(!rows.is_empty(), "{path}");
    }
    resources
}

/// Removes from a document of Kubernetes what this server does not support: media types and parameters.
fn supported(value: &mut Value) {
    let is_served = |name: &str| {
        MEDIA_TYPES.contains(&name)
            || STREAM_MEDIA_TYPES.contains(&name)
            || patch::MEDIA_TYPES.contains(&name)
            || ["*/*", "text/plain"].contains(&name)
    };
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(content)) = fields.get_mut("content") {
                content.retain(|name, _| is_served(name));
            }
            if let Some(Value::Array(parameters)) = fields.get_mut("parameters") {
                parameters.retain(|parameter| {
                    let name = parameter["name"].as_str().unwrap_or_default();
                    !WITHOUT_PARAMETERS.contains(&name)
                });
            }
            fields.values_mut().for_each(supported);
        }
        Value::Array(items) => items.iter_mut().for_each(supported),
        _ => {}
    }
}

#[test]
fn documents_of_all_of_kubernetes_are_those_of_kubernetes() {
    let Some(folder) = reference() else { return };
    let resources = kubernetes(&folder);
    let parts = document::parts(&resources);
    let mut differences = Vec::new();
    let mut operations = 0;
    for (path, mut expected) in documents(&folder.join("openapi-v3"), "_openapi.json") {
        if WITHOUT_DOCUMENTS.contains(&path.as_str()) {
            continue;
        }
        let Some(part) = parts.get(&path) else {
            differences.push(format!("no document {path}"));
            continue;
        };
        let mut ours = document::render(part, &resources);
        supported(&mut expected["paths"]);
        let (expected_paths, our_paths) = (expected["paths"].take(), ours["paths"].take());
        let (theirs, mine) = (expected_paths.as_object().expect("paths"), our_paths.as_object().expect("paths"));
        for name in theirs.keys().chain(mine.keys()) {
            let (their, my) = (theirs.get(name), mine.get(name));
            if their != my && !differences.iter().any(|known| known.starts_with(&format!("{path} {name}\n"))) {
                let show = |item: Option<&Value>| item.map_or_else(String::new, Value::to_string);
                differences.push(format!("{path} {name}\n  theirs {}\n  ours   {}", show(their), show(my)));
            }
        }
        operations += mine.values().flat_map(|item| item.as_object().into_iter().flatten()).count();
        let components = |document: &Value| document["components"]["schemas"].as_object().cloned().unwrap_or_default();
        let (their, my) = (components(&expected), components(&ours));
        for name in their.keys().chain(my.keys()) {
            if their.get(name) != my.get(name) {
                differences.push(format!(
                    "{path}: component {name}: {} {}",
                    their.contains_key(name),
                    my.contains_key(name)
                ));
            }
        }
    }
    let shown: Vec<_> = differences.iter().take(8).cloned().collect();
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), shown.join("\n"));
    assert!(operations > 900, "{operations} operations and shared parameters");
}

/// Returns the messages of a field.
fn messages(message: &[u8], number: u32) -> Vec<&[u8]> {
    let fields = Reader::new(message).map(|field| field.expect("a message"));
    fields
        .filter_map(|(field, value)| match value {
            Wire::Bytes(bytes) if field == number => Some(bytes),
            _ => None,
        })
        .collect()
}

/// Returns the value of a named entry.
fn named<'a>(entries: &[&'a [u8]], name: &str) -> &'a [u8] {
    let found = entries.iter().find(|entry| messages(entry, 1) == [name.as_bytes()]);
    messages(found.unwrap_or_else(|| panic!("no {name}")), 2)[0]
}

fn served() -> Documents {
    let rows: Vec<_> = Catalog::new(quorate_registry::builtin()).rows;
    Documents::new(&rows)
}

#[test]
fn version_2_says_in_protobuf_what_it_says_in_json() {
    let documents = match reference() {
        Some(folder) => Documents::of(kubernetes(&folder)),
        None => served(),
    };
    let json = documents.v2();
    let bytes = documents.v2_protobuf().expect("a document").plain().expect("gzip");
    let paths = messages(messages(&bytes, 8)[0], 2);
    assert_eq!(paths.len(), json["paths"].as_object().expect("paths").len());
    let definitions = messages(messages(&bytes, 9)[0], 1);
    assert_eq!(definitions.len(), json["definitions"].as_object().expect("definitions").len());
    let pod = named(&paths, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = messages(pod, 8)[0];
    assert_eq!(messages(patch, 5), [b"patchCoreV1NamespacedPod"]);
    let parameters = messages(patch, 8);
    let query =
        |item: &[u8]| messages(messages(item, 1)[0], 2).first().map(|p| messages(messages(p, 3)[0], 4)[0].to_vec());
    assert!(parameters.iter().any(|item| query(item) == Some(b"fieldValidation".to_vec())));
    let spec = named(&definitions, "io.k8s.api.core.v1.PodSpec");
    let containers = named(&messages(messages(spec, 25)[0], 1), "containers");
    let key = named(&messages(containers, 31), "x-kubernetes-patch-merge-key");
    assert_eq!(messages(key, 2), [b"\"name\""]);
    let items = messages(messages(containers, 23)[0], 1)[0];
    assert_eq!(messages(items, 1), [b"#/definitions/io.k8s.api.core.v1.Container"]);
}

#[test]
fn version_2_names_every_group_version_of_delete_options() {
    let json = served().v2();
    let kinds =
        &json["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"];
    let text = |kind: &Value, field: &str| kind[field].as_str().map(str::to_owned).expect("a text");
    let named = kinds.as_array().expect("kinds").iter().map(|kind| (text(kind, "group"), text(kind, "version")));
    let rows = Catalog::new(quorate_registry::builtin()).rows;
    let kinds = rows.iter().map(|row| &row.descriptor.kind);
    let served: BTreeSet<_> = kinds.map(|kind| (kind.group.to_string(), kind.version.to_string())).collect();
    assert_eq!(named.collect::<Vec<_>>(), served.into_iter().collect::<Vec<_>>());
    let create = &json["paths"]["/api/v1/namespaces/{namespace}/configmaps"]["post"];
    assert_eq!(create["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.ConfigMap");
    assert_eq!(create["responses"]["201"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.ConfigMap");
}

/// The documents of all of Kubernetes' stable versions are kept in less than a megabyte.
#[test]
fn documents_are_kept_in_bounded_memory() {
    let Some(folder) = reference() else { return };
    let documents = Documents::of(kubernetes(&folder));
    documents.index().expect("an index");
    let parts = documents.parts.values().map(|(_, lazy)| match lazy.get() {
        Some(Ok(packed)) => packed,
        other => panic!("the index renders every document: {other:?}"),
    });
    let (mut kept, mut plain) = (0, 0);
    let v2 = [documents.v2_json().expect("JSON"), documents.v2_protobuf().expect("protobuf")];
    for packed in parts.chain(v2) {
        kept += packed.size_bytes();
        plain += packed.plain().expect("gzip").len();
    }
    eprintln!("{kept} bytes are kept for documents of {plain} bytes");
    assert!(kept < 2 << 20, "{kept} bytes for {plain}");
}
