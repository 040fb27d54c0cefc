//! Get and list: paging, versions, selectors, representations.

use http::Method;
use quorate_schema::protobuf::wire::{Reader, Wire};
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Server, config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str().expect("a version");
    version.parse().expect("a number")
}

async fn create_maps(admin: &Client, count: usize) {
    for index in 0..count {
        let mut object = config_map(&format!("map-{index:02}"));
        object["metadata"]["labels"] = json!({ "parity": if index % 2 == 0 { "even" } else { "odd" } });
        admin.post(MAPS, &object).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_revision() {
    let server = Server::start().await;
    let admin = server.admin();
    create_maps(&admin, 10).await;
    let first = admin.get(&format!("{MAPS}?limit=4")).await.expect(200);
    assert_eq!(names(&first), ["map-00", "map-01", "map-02", "map-03"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    admin.delete(&format!("{MAPS}/map-05"), &json!({})).await.expect(200);
    admin.post(MAPS, &config_map("map-04b")).await.expect(201);
    let mut seen: Vec<String> = names(&first).into_iter().map(str::to_owned).collect();
    let mut page = first.clone();
    while let Some(token) = page["metadata"]["continue"].as_str() {
        page = admin.get(&format!("{MAPS}?limit=4&continue={token}")).await.expect(200);
        assert_eq!(version(&page), version(&first), "all pages are of one state");
        seen.extend(names(&page).into_iter().map(str::to_owned));
    }
    let expected: Vec<String> = (0..10).map(|i| format!("map-{i:02}")).collect();
    assert_eq!(seen, expected);
    assert!(page["metadata"].get("remainingItemCount").is_none());
    assert_eq!(admin.get(&format!("{MAPS}?limit=4&continue=nonsense")).await.failure().0, 400);
    let selected = admin.get(&format!("{MAPS}?limit=2&labelSelector=parity=odd")).await.expect(200);
    assert_eq!(names(&selected), ["map-01", "map-03"]);
    assert!(selected["metadata"].get("remainingItemCount").is_none(), "unknown with a selector");
    assert!(selected["metadata"]["continue"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_an_expired_token_can_continue_at_the_newest_revision() {
    let server = Server::start().await;
    let admin = server.admin();
    create_maps(&admin, 10).await;
    let first = admin.get(&format!("{MAPS}?limit=4")).await.expect(200);
    let token = |list: &Value| list["metadata"]["continue"].as_str().expect("a token").to_owned();
    admin.delete(&format!("{MAPS}/map-05"), &json!({})).await.expect(200);
    admin.post(MAPS, &config_map("map-04b")).await.expect(201);
    let compact = quorate_mvcc::Command::Compact { revision: server.api.store().revision() };
    server.api.store().propose(compact).await.expect("the store compacts");

    let expired = admin.get(&format!("{MAPS}?limit=4&continue={}", token(&first))).await;
    let (code, reason, message) = expired.failure();
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    assert_eq!(
        message,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list."
    );
    let second = admin.get(&format!("{MAPS}?limit=4&continue={}", token(&expired.json()))).await.expect(200);
    assert_eq!(names(&second), ["map-04", "map-04b", "map-06", "map-07"]);
    assert_eq!(version(&second), server.api.store().revision().0, "the newest state");
    assert_eq!(second["metadata"]["remainingItemCount"], 2);
    // From here on, all pages show one revision again.
    admin.delete(&format!("{MAPS}/map-08"), &json!({})).await.expect(200);
    let third = admin.get(&format!("{MAPS}?limit=4&continue={}", token(&second))).await.expect(200);
    assert_eq!((names(&third), version(&third)), (vec!["map-08", "map-09"], version(&second)));
    assert!(third["metadata"].get("continue").is_none(), "that was all");
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_versions_fix_or_bound_the_revision() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    let at = version(&created);
    admin.post(MAPS, &config_map("b")).await.expect(201);
    let list = async |query: String| admin.get(&format!("{MAPS}?{query}")).await;
    assert_eq!(names(&list(format!("resourceVersion={at}&resourceVersionMatch=Exact")).await.expect(200)), ["a"]);
    let newer = list(format!("resourceVersion={at}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(names(&newer), ["a", "b"]);
    assert_eq!(names(&list("resourceVersion=0".to_owned()).await.expect(200)), ["a", "b"]);
    let far = at + 1_000_000;
    let late = list(format!("resourceVersion={far}")).await;
    assert_eq!(
        (late.code, late.json()["details"]["causes"][0]["reason"].clone()),
        (504, json!("ResourceVersionTooLarge"))
    );
    assert_eq!(list("resourceVersionMatch=Exact".to_owned()).await.failure().0, 422);
    assert_eq!(list("resourceVersion=0&resourceVersionMatch=Exact".to_owned()).await.failure().0, 422);
    assert_eq!(list("resourceVersion=x".to_owned()).await.failure().1, "Invalid");
    assert_eq!(admin.get(&format!("{MAPS}/a?resourceVersion=0")).await.expect(200), created);
    assert_eq!(admin.get(&format!("{MAPS}/absent")).await.failure().2, "configmaps \"absent\" not found");
    let compact = quorate_mvcc::Command::Compact { revision: server.api.store().revision() };
    server.api.store().propose(compact).await.expect("the store compacts");
    let old = list(format!("resourceVersion={at}&resourceVersionMatch=Exact")).await.failure();
    assert_eq!((old.0, old.1.as_str()), (410, "Expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_filter_lists() {
    let server = Server::start().await;
    let admin = server.admin();
    create_maps(&admin, 4).await;
    for (name, node) in [("p1", "a"), ("p2", "b")] {
        let mut object = pod(name);
        object["spec"]["nodeName"] = node.into();
        admin.post(PODS, &object).await.expect(201);
    }
    let cases = [
        (MAPS, "labelSelector=parity%3Deven", vec!["map-00", "map-02"]),
        (MAPS, "labelSelector=parity+notin+(even)", vec!["map-01", "map-03"]),
        (MAPS, "labelSelector=!parity", vec![]),
        (MAPS, "fieldSelector=metadata.name%3Dmap-03", vec!["map-03"]),
        (MAPS, "fieldSelector=metadata.name!%3Dmap-03,metadata.namespace%3Ddefault&limit=2", vec!["map-00", "map-01"]),
        (PODS, "fieldSelector=spec.nodeName%3Db", vec!["p2"]),
        ("/api/v1/pods", "fieldSelector=spec.nodeName%3Da,status.phase%3DPending", vec!["p1"]),
        ("/api/v1/pods", "fieldSelector=metadata.namespace%3Dkube-system", vec![]),
    ];
    for (path, query, expected) in cases {
        let list = admin.get(&format!("{path}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    let (code, _, message) = admin.get(&format!("{MAPS}?fieldSelector=data.key%3Dx")).await.failure();
    assert_eq!(code, 400);
    assert_eq!(message, r#""data.key" is not a known field selector: only "metadata.name", "metadata.namespace""#);
    let (code, _, message) = admin.get("/api/v1/pods?fieldSelector=spec.image%3Dx").await.failure();
    assert_eq!((code, message.as_str()), (400, "field label not supported: spec.image"));
    let (code, _, message) = admin.get(&format!("{MAPS}?labelSelector=a+in")).await.failure();
    assert_eq!((code, message.matches("unable to parse requirement").count()), (400, 1), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_metadata_are_served() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(PODS, &pod("web")).await.expect(201);
    let table = admin.get_as(PODS, TABLE).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns = table["columnDefinitions"].as_array().expect("columns");
    assert_eq!((&columns[0]["name"], &columns[0]["format"]), (&json!("Name"), &json!("name")));
    let row = &table["rows"][0];
    assert_eq!(row["cells"].as_array().map(Vec::len), Some(columns.len()));
    assert_eq!((&row["cells"][0], &row["object"]["kind"]), (&json!("web"), &json!("PartialObjectMetadata")));
    assert_eq!(row["object"]["metadata"], created["metadata"]);
    let one = admin.get_as(&format!("{PODS}/web?includeObject=Object"), TABLE).await.expect(200);
    assert_eq!(one["rows"][0]["object"], created);
    let none = admin.get_as(&format!("{PODS}?includeObject=None"), TABLE).await.expect(200);
    assert!(none["rows"][0].get("object").is_none());
    assert_eq!(admin.get_as(&format!("{PODS}?includeObject=Some"), TABLE).await.code, 400);
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = admin.get_as(PODS, partial).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]),
        (&json!("PartialObjectMetadataList"), &created["metadata"])
    );
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let object = admin.get_as(&format!("{PODS}/web"), partial).await.expect(200);
    assert_eq!(
        object,
        json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": created["metadata"],
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accept_header_selects_the_format() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("a")).await.expect(201);
    let table_in_protobuf = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(admin.get_as(MAPS, table_in_protobuf).await.failure().1, "NotAcceptable");
    assert_eq!(
        admin.get_as(MAPS, &format!("{table_in_protobuf},application/json")).await.expect(200)["kind"],
        "ConfigMapList"
    );
    let yaml = admin.get_as(&format!("{MAPS}/a"), "application/yaml").await;
    assert!(yaml.text().contains("kind: ConfigMap"), "{}", yaml.text());
    let pretty = admin.get(&format!("{MAPS}/a?pretty=1")).await;
    assert!(pretty.text().starts_with("{\n  \"apiVersion\""), "{}", pretty.text());
    let mut large = config_map("large");
    large["data"]["key"] = "x".repeat(200_000).into();
    admin.post(MAPS, &large).await.expect(201);
    let zipped = admin.request(Method::GET, MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(zipped.headers.get("content-encoding").map(|v| v.as_bytes()), Some(b"gzip".as_slice()));
    assert!(zipped.bytes.len() < 20_000);
}

/// Creates maps that fill several pages of a list.
async fn create_large_maps(admin: &Client) -> Vec<String> {
    for index in 0..40 {
        let mut object = config_map(&format!("map-{index:02}"));
        object["metadata"]["labels"] = json!({ "parity": if index % 2 == 0 { "even" } else { "odd" } });
        object["data"] = json!({ "large": format!("{index:02}: \"x\"\n").repeat(3000) });
        admin.post(MAPS, &object).await.expect(201);
    }
    (0..40).map(|index| format!("map-{index:02}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_several_pages_is_one_document_in_every_representation() {
    let server = Server::start().await;
    let admin = server.admin();
    let expected = create_large_maps(&admin).await;
    let all = admin.get(MAPS).await;
    assert!(all.headers.get("content-length").is_none(), "it is sent while it is read");
    let all = all.json();
    assert_eq!((&all["kind"], &all["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(names(&all), expected);
    assert_eq!(version(&all), version(&all["items"][39]), "nothing else was written");
    for query in ["?pretty=true", "?limit=100", "?resourceVersion=0"] {
        assert_eq!(admin.get(&format!("{MAPS}{query}")).await.json()["items"], all["items"], "{query}");
    }

    let limited = admin.get(&format!("{MAPS}?limit=30")).await.json();
    assert_eq!(names(&limited), expected[..30]);
    assert_eq!((version(&limited), &limited["metadata"]["remainingItemCount"]), (version(&all), &json!(10)));
    let token = limited["metadata"]["continue"].as_str().expect("a token");
    let rest = admin.get(&format!("{MAPS}?limit=30&continue={token}")).await.json();
    assert_eq!(names(&rest), expected[30..]);
    assert!(rest["metadata"].get("continue").is_none());

    let odd = admin.get(&format!("{MAPS}?labelSelector=parity=odd")).await.json();
    assert_eq!(names(&odd).len(), 20);
    let none = admin.get(&format!("{MAPS}?labelSelector=parity=neither")).await.json();
    assert_eq!((names(&none).len(), version(&none)), (0, version(&all)));

    let table = admin.get_as(MAPS, TABLE).await.json();
    assert_eq!((&table["kind"], version(&table)), (&json!("Table"), version(&all)));
    let rows = table["rows"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| row["cells"][0].as_str().expect("a name")).collect::<Vec<_>>(), expected);
    let partial = admin.get_as(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.json();
    assert_eq!((names(&partial), &partial["items"][3]["data"]), (names(&all), &Value::Null));

    for query in ["", "?limit=30", "?labelSelector=parity=neither"] {
        let text = admin.get_as(&format!("{MAPS}{query}"), "application/yaml").await.text();
        let yaml = quorate_api::yaml::value(&text).expect("YAML");
        assert_eq!(yaml["items"], admin.get(&format!("{MAPS}{query}")).await.json()["items"], "{query}");
        assert_eq!((version(&yaml), &yaml["kind"]), (version(&all), &json!("ConfigMapList")));
    }

    let zipped = admin.request(Method::GET, MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(zipped.headers.get("content-encoding").map(|v| v.as_bytes()), Some(b"gzip".as_slice()));
    assert!(zipped.bytes.len() < 200_000, "{} bytes", zipped.bytes.len());
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CBOR: &str = "application/cbor";

fn decoded(answer: &Answer) -> Value {
    let content_type = answer.headers.get("content-type").expect("a type").to_str().expect("text");
    match content_type {
        PROTOBUF => quorate_schema::protobuf::decode(quorate_schema::builtin(), &answer.bytes).expect("protobuf"),
        CBOR => from_cbor(&answer.bytes),
        "application/yaml" => quorate_api::yaml::value(&answer.text()).expect("YAML"),
        _ => answer.json(),
    }
}

fn from_cbor(bytes: &[u8]) -> Value {
    let document = bytes.strip_prefix(&[0xd9, 0xd9, 0xf7]).expect("the tag of self-described CBOR");
    ciborium::from_reader(document).expect("CBOR")
}

/// Returns the object without what JSON shows and protobuf leaves out: empty values.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_empty = |value: &Value| value.is_null() || *value == json!({}) || *value == json!([]);
            let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_lists_and_events_are_the_same_in_every_encoding() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = pod("a");
    object["spec"]["containers"][0]["env"] = json!([{ "name": "A", "value": "1" }]);
    let created = admin.post(PODS, &object).await.expect(201);
    let large = create_large_maps(&admin).await;
    for accept in [PROTOBUF, CBOR, "application/yaml", "application/json"] {
        let one = decoded(&admin.get_as(&format!("{PODS}/a"), accept).await);
        assert_eq!(without_empty(one), without_empty(created.clone()), "{accept}");
        let list = decoded(&admin.get_as(PODS, accept).await);
        assert_eq!((&list["kind"], list["items"][0]["metadata"]["name"].as_str()), (&json!("PodList"), Some("a")));
        assert_eq!(names(&decoded(&admin.get_as(MAPS, accept).await)), large, "{accept}");
        let partial = format!("{accept};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
        let partial = decoded(&admin.get_as(PODS, &partial).await);
        assert_eq!(
            (&partial["kind"], &partial["items"][0]["metadata"]["uid"]),
            (&json!("PartialObjectMetadataList"), &created["metadata"]["uid"])
        );
    }
    // The same object goes in as CBOR and as protobuf.
    for (format, name) in [(CBOR, "b"), (PROTOBUF, "c")] {
        let object = pod(name);
        let mut body = Vec::new();
        match format {
            CBOR => ciborium::into_writer(&object, &mut body).expect("CBOR"),
            _ => body = quorate_schema::protobuf::encode(quorate_schema::builtin(), &object).expect("protobuf"),
        }
        let headers = [("content-type", format), ("accept", format)];
        let written = admin.request(Method::POST, PODS, &headers, body).await;
        assert_eq!((written.code, &decoded(&written)["metadata"]["name"]), (201, &json!(name)));
    }
    let broken = admin.request(Method::POST, PODS, &[("content-type", CBOR)], vec![0xff]).await;
    assert_eq!(broken.failure().1, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_framed_in_every_encoding() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(PODS, &pod("a")).await.expect(201);
    let path = format!("{PODS}?watch=1&resourceVersion=0&timeoutSeconds=1&allowWatchBookmarks=true");
    let watch = async |accept: &str| admin.request(Method::GET, &path, &[("accept", accept)], "").await;
    let answer = watch(PROTOBUF).await;
    assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut rest = &answer.bytes[..];
    let mut types = Vec::new();
    while let Some((length, frames)) = rest.split_first_chunk::<4>() {
        let (frame, others) = frames.split_at(u32::from_be_bytes(*length) as usize);
        rest = others;
        let fields: Vec<_> = Reader::new(frame).map(|field| field.expect("a field")).collect();
        let [(1, Wire::Bytes(what)), (2, Wire::Bytes(raw))] = fields[..] else { panic!("{fields:?}") };
        types.push(String::from_utf8_lossy(what).into_owned());
        let Some(Ok((1, Wire::Bytes(object)))) = Reader::new(raw).next() else { panic!("{raw:?}") };
        let object = quorate_schema::protobuf::decode(quorate_schema::builtin(), object).expect("an object");
        if what == b"ADDED" {
            assert_eq!(without_empty(object), without_empty(created.clone()));
        }
    }
    assert_eq!(types, ["ADDED", "BOOKMARK"]);
    let answer = watch("application/cbor-seq, application/json;q=0.1").await;
    assert_eq!(answer.headers["content-type"], "application/cbor-seq");
    let mut rest = &answer.bytes[..];
    let mut types = Vec::new();
    while let Some(document) = rest.strip_prefix(&[0xd9, 0xd9, 0xf7]) {
        rest = document;
        let event: Value = ciborium::from_reader(&mut rest).expect("an event");
        if event["type"] == "ADDED" {
            assert_eq!(event["object"], created);
        }
        types.push(event["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!((types, rest.len()), (vec!["ADDED".to_owned(), "BOOKMARK".to_owned()], 0));
}
