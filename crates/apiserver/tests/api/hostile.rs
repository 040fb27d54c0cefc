//! Tests of hostile clients: bodies, patches, queries and connections that try to exhaust the server. Each request gets a
//! `Status` or its connection is closed, and the server answers the others.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Server, config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CBOR: &str = "application/cbor";
/// Almost as much as a body may have.
const LARGE: usize = 3 << 20;

async fn post(client: &Client, path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Answer {
    client.request(Method::POST, path, &[("content-type", media_type)], body.as_ref().to_vec()).await
}

async fn patch(client: &Client, path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Answer {
    client.request(Method::PATCH, path, &[("content-type", media_type)], body.as_ref().to_vec()).await
}

/// Checks that a request was refused with a `Status` of moderate size, for a reason that is the client's.
#[track_caller]
fn refused(answer: &Answer, what: &str) -> String {
    let (code, reason, message) = answer.failure();
    assert!((400..500).contains(&code) && !reason.is_empty(), "{what}: {code} {reason} {}", shown(&message));
    assert!(answer.bytes.len() < 4 << 20, "{what}: a response of {} bytes", answer.bytes.len());
    message
}

fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Returns `middle` within as many pairs of `open` and `close`.
fn nested(open: &str, middle: &str, close: &str, depth: usize) -> String {
    [&open.repeat(depth), middle, &close.repeat(depth)].concat()
}

/// A field of a protobuf message that holds bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    [&varint(u64::from(number) << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A protobuf document of a kind whose message has these bytes.
fn document(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &type_meta), field(2, message)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_nesting_is_refused_in_every_format() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("a")).await.expect(201);
    let depth = 200_000;
    let lists = nested("[", "", "]", depth);
    let maps = nested("{\"a\":", "1", "}", depth);
    for (media_type, body) in [
        (JSON, lists.clone()),
        (JSON, maps.clone()),
        (JSON, "[".repeat(LARGE)),
        (JSON, format!("{{\"spec\":{maps}}}")),
        (JSON, format!("{{\"metadata\":{{\"managedFields\":[{{\"fieldsV1\":{maps}}}]}}}}")),
        (YAML, lists.clone()),
        (YAML, maps.clone()),
        (YAML, "[".repeat(LARGE)),
        (YAML, "- ".repeat(LARGE / 2)),
        (YAML, "? ".repeat(LARGE / 2)),
        (YAML, (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect()),
    ] {
        refused(&post(&admin, PODS, media_type, body).await, media_type);
    }
    for byte in [0x81, 0x9f, 0xa1, 0xbf, 0xd9, 0xc0, 0x5f, 0x7f] {
        refused(&post(&admin, PODS, CBOR, vec![byte; LARGE]).await, CBOR);
    }
    // A schema within a schema: `not` is field 27 of JSONSchemaProps.
    let mut schema = Vec::new();
    for _ in 0..10_000 {
        schema = field(27, &schema);
    }
    let validation = field(4, &field(1, &schema));
    let crd = field(2, &field(7, &validation));
    let message = refused(
        &post(&admin, CRDS, PROTOBUF, document("apiextensions.k8s.io/v1", "CustomResourceDefinition", &crd)).await,
        PROTOBUF,
    );
    assert!(message.contains("nested too deeply"), "{}", shown(&message));
    // A document within the raw data of a ControllerRevision.
    let mut inner = Vec::new();
    for _ in 0..1000 {
        inner = document("apps/v1", "ControllerRevision", &field(2, &field(1, &inner)));
    }
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let message = refused(&post(&admin, path, PROTOBUF, inner).await, PROTOBUF);
    assert!(message.contains("nested too deeply"), "{}", shown(&message));

    let path = format!("{MAPS}/a");
    for kind in ["merge", "strategic-merge", "json"] {
        let media_type = format!("application/{kind}-patch+json");
        refused(&patch(&admin, &path, &media_type, &maps).await, kind);
        refused(
            &patch(&admin, &path, &media_type, format!("[{{\"op\":\"add\",\"path\":\"/a\",\"value\":{lists}}}]")).await,
            kind,
        );
    }
    let apply = format!("{path}?fieldManager=me");
    refused(&patch(&admin, &apply, "application/apply-patch+yaml", &maps).await, "apply");
    let options = format!("{{\"kind\":\"DeleteOptions\",\"dryRun\":{lists}}}");
    let answer = admin.request(Method::DELETE, &path, &[("content-type", JSON)], options).await;
    refused(&answer, "the options of a deletion");
    admin.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_full_of_values_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let list = |item: &str| {
        let count = (LARGE - 300) / (item.len() + 1);
        format!("[{}]", vec![item; count].join(","))
    };
    let of_pod = |spec: String| format!("{{\"metadata\":{{\"name\":\"a\"}},\"spec\":{spec}}}");
    let containers =
        |container: String| of_pod(format!("{{\"containers\":[{{\"name\":\"c\",\"image\":\"i\",{container}}}]}}"));
    for body in [
        of_pod(format!("{{\"containers\":{}}}", list("{}"))),
        of_pod(format!("{{\"tolerations\":{}}}", list("{}"))),
        of_pod(format!("{{\"volumes\":{}}}", list("{}"))),
        of_pod(format!("{{\"imagePullSecrets\":{}}}", list("{}"))),
        of_pod(format!("{{\"schedulingGates\":{}}}", list("{\"name\":\"a\"}"))),
        containers(format!("\"ports\":{}", list("{}"))),
        containers(format!("\"env\":{}", list("{}"))),
        containers(format!("\"args\":{}", list("0"))),
        containers(format!("\"command\":{}", list("null"))),
        format!("{{\"metadata\":{{\"name\":\"a\",\"finalizers\":{}}}}}", list("\"\"")),
        format!("{{\"metadata\":{{\"name\":\"a\",\"ownerReferences\":{}}}}}", list("{}")),
        format!("{{\"metadata\":{{\"name\":\"a\",\"managedFields\":{}}}}}", list("{}")),
        list("[]"),
        list("{}"),
    ] {
        refused(&post(&admin, PODS, JSON, &body).await, &shown(&body));
    }
    let names: Vec<String> = (0..LARGE / 16).map(|index| format!("\"-{index:x}\":\"\"")).collect();
    let body = format!("{{\"metadata\":{{\"name\":\"a\",\"labels\":{{{}}}}}}}", names.join(","));
    refused(&post(&admin, MAPS, JSON, &body).await, "labels");
    let keys: String = (0..LARGE / 12).map(|index| format!("{index:x}: {{}}\n")).collect();
    for text in [
        keys.as_str(),
        &"- \n".repeat(LARGE / 3),
        &"a: &a {}\n".repeat(LARGE / 9),
        &"\n".repeat(LARGE),
        &"#\n".repeat(LARGE / 2),
    ] {
        refused(&post(&admin, MAPS, YAML, text).await, &shown(text));
    }
    refused(&post(&admin, MAPS, CBOR, [&[0x9a, 0, 0x20, 0, 0][..], &vec![0xa0; 0x20_0000]].concat()).await, "CBOR");
    // Empty containers: field 2 of the specification.
    let spec = field(2, &[]).repeat(LARGE / 2 - 100);
    refused(&post(&admin, PODS, PROTOBUF, document("v1", "Pod", &field(2, &spec))).await, "protobuf");
    assert_eq!(admin.get(PODS).await.expect(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    let with = |before: &str, after: &str| [before.as_bytes(), b"\xff\xfe\xc0\x80", after.as_bytes()].concat();
    refused(&post(&admin, MAPS, JSON, with("{\"metadata\":{\"name\":\"", "\"}}")).await, JSON);
    refused(&post(&admin, MAPS, YAML, with("metadata: {name: ", "}")).await, YAML);
    refused(&post(&admin, MAPS, CBOR, [&[0xa1, 0x64][..], b"\xff\xfe\xc0\x80", &[0x60]].concat()).await, CBOR);
    let name = field(1, &field(1, b"\xff\xfe"));
    refused(&post(&admin, MAPS, PROTOBUF, document("v1", "ConfigMap", &name)).await, PROTOBUF);
    let path = format!("{MAPS}/a");
    for media_type in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        refused(&patch(&admin, &path, media_type, with("{\"data\":{\"", "\":\"\"}}")).await, media_type);
    }
    let apply = format!("{path}?fieldManager=me");
    refused(&patch(&admin, &apply, "application/apply-patch+yaml", with("kind: ", "")).await, "apply");
    for query in ["labelSelector=%ff", "fieldSelector=%c0%80", "%ff=a", "pretty=%ed%a0%80", "continue=%ff"] {
        refused(&admin.get(&format!("{MAPS}?{query}")).await, query);
    }
    refused(&admin.get("/api/v1/namespaces/%ff/configmaps").await, "a path");
    // A lone surrogate has an escape in JSON, but no form in UTF-8.
    refused(&post(&admin, MAPS, JSON, "{\"metadata\":{\"name\":\"\\ud800\"}}").await, "a surrogate");

    let request = |name: &'static str, value: &'static [u8]| {
        let admin = admin.clone();
        async move {
            let value = http::HeaderValue::from_bytes(value).expect("HTTP allows these bytes");
            let request = http::Request::get(MAPS).header("host", "127.0.0.1").header(name, value);
            let answer = admin.send(request.body(http_body_util::Full::default()).expect("a request")).await;
            answer.status().as_u16()
        }
    };
    for name in
        ["accept", "content-type", "user-agent", "accept-encoding", "if-none-match", "authorization", "x-remote-user"]
    {
        let code = request(name, b"\xff\xfe application/json").await;
        assert!(code == 200 || (400..500).contains(&code), "{name}: {code}");
    }
    assert_eq!(admin.get(&path).await.expect(200), created);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_that_would_fill_the_memory_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    let path = format!("{MAPS}/a");
    let json_patch = |operations: Vec<Value>| {
        let (admin, path) = (admin.clone(), path.clone());
        async move { refused(&admin.patch(&path, "json", &Value::from(operations)).await, "a JSON patch") }
    };
    let copies = (0..60).map(|index| json!({ "op": "copy", "from": "", "path": format!("/copy{index}") }));
    assert!(json_patch(copies.collect()).await.contains("error in our request"));
    let tests = vec![json!({ "op": "test", "path": "/data/key", "value": "value" }); 10_001];
    assert!(json_patch(tests).await.contains("maximum operations"));
    let many: Vec<Value> = vec![Value::from(0); 500_000];
    let large = json!({ "op": "add", "path": "/x", "value": many });
    let moves = (0..9_999).map(|index| match index % 2 {
        0 => json!({ "op": "move", "from": "/x", "path": "/y" }),
        _ => json!({ "op": "move", "from": "/y", "path": "/x" }),
    });
    json_patch([large.clone()].into_iter().chain(moves).collect()).await;
    let first = json!({ "op": "add", "path": "/x/0", "value": 0 });
    json_patch([large.clone()].into_iter().chain(std::iter::repeat_n(first, 9_999)).collect()).await;
    let removed = json!({ "op": "remove", "path": "/x/0" });
    json_patch([large].into_iter().chain(std::iter::repeat_n(removed, 9_999)).collect()).await;
    // Ten thousand comparisons of a large value are quick, and change nothing.
    let tests = vec![json!({ "op": "test", "path": "/data/key", "value": "value" }); 10_000];
    admin.patch(&path, "json", &tests.into()).await.expect(200);
    assert_eq!(admin.get(&path).await.expect(200), created);
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_of_long_lists_are_bounded() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(PODS, &pod("a")).await.expect(201);
    let path = format!("{PODS}/a");
    let names = |count: usize| (0..count).map(|index| json!({ "name": format!("c{index}") })).collect::<Vec<_>>();
    let strategic = |body: Value| {
        let (admin, path) = (admin.clone(), path.clone());
        async move { refused(&admin.patch(&path, "strategic-merge", &body).await, "a strategic merge patch") }
    };
    strategic(json!({ "spec": { "containers": names(50_000), "$setElementOrder/containers": names(50_000) } })).await;
    let deletions: Vec<Value> =
        (0..50_000).map(|index| json!({ "name": format!("c{index}"), "$patch": "delete" })).collect();
    let mut deletions_of_all = deletions;
    deletions_of_all.push(json!({ "name": "main", "$patch": "delete" }));
    strategic(json!({ "spec": { "containers": deletions_of_all } })).await;
    let finalizers: Vec<String> = (0..100_000).map(|index| format!("f{index}")).collect();
    strategic(json!({ "metadata": { "finalizers": finalizers, "$deleteFromPrimitiveList/finalizers": finalizers } }))
        .await;
    strategic(json!({ "spec": { "$retainKeys": finalizers } })).await;

    let apply = |configuration: String| {
        let (admin, path) = (admin.clone(), format!("{path}?fieldManager=me&force=true"));
        async move { refused(&patch(&admin, &path, "application/apply-patch+yaml", configuration).await, "an apply") }
    };
    let head = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";
    apply(format!("{head}spec: {}", json!({ "containers": names(50_000) }))).await;
    let mut bomb = format!("{head}  annotations: {{}}\na0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(apply(bomb).await.contains("excessive aliasing"));
    let pod = admin.get(&path).await.expect(200);
    assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_field_managers_are_read_in_bounded_time() {
    let server = Server::start().await;
    let admin = server.admin();
    let entries: Vec<Value> = (0..18_000)
        .map(|index| {
            json!({
                "manager": format!("m{index}"), "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": { "f:data": { "f:a": {} } },
            })
        })
        .collect();
    let mut object = config_map("a");
    object["metadata"]["managedFields"] = entries.into();
    object["data"] = (0..30_000).map(|index| (format!("{index}"), Value::from(""))).collect();
    let answer = admin.post(MAPS, &object).await;
    assert_eq!(answer.failure().2, "etcdserver: request is too large");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_below_a_long_key_make_a_short_refusal() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions/a";
    let configuration = |value: u32| {
        let fields: Value = (0..10_000).map(|index| (format!("{index}"), Value::from(value))).collect();
        json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": { "name": "a" }, "revision": 1,
            "data": { "k".repeat(200_000): fields },
        })
    };
    let apply = |manager: &str, value: u32| {
        let (admin, path) = (admin.clone(), format!("{path}?fieldManager={manager}"));
        let body = quorate_schema::cbor::encode(&configuration(value)).expect("CBOR");
        async move { patch(&admin, &path, "application/apply-patch+cbor", body).await }
    };
    assert_eq!(apply("first", 1).await.code, 201);
    let conflicts = apply("second", 2).await;
    assert_eq!(conflicts.failure().1, "Conflict");
    assert!(conflicts.bytes.len() < 4 << 20, "{} bytes", conflicts.bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let prefix = b"k8s\0".as_slice();
    let huge = varint(u64::from(u32::MAX));
    let map = |message: &[u8]| document("v1", "ConfigMap", message);
    let number = |number: u64, wire: u64| varint(number << 3 | wire);
    for (what, body) in [
        ("a length beyond the end", [prefix, &[0x0a], &huge].concat()),
        ("a length of 2^63", [prefix, &[0x0a], &varint(1 << 63)].concat()),
        ("a length of eleven bytes", [prefix, &[0x0a], &[0xff; 11]].concat()),
        ("an inner length beyond the outer one", map(&[&[0x0a][..], &huge, b"x"].concat())),
        ("a huge field number", map(&[number((1 << 29) - 1, 2), field(1, b"x")].concat())),
        ("a field number beyond the limit", map(&[number(1 << 40, 0), vec![1]].concat())),
        ("field number zero", map(&[0x02, 0x01, b'x'])),
        ("a group", map(&[0x0b, 0x0c])),
        ("a number where a message belongs", map(&[0x08, 0x01])),
        ("a number of 64 bits and more", map(&[&[0x10][..], &[0xff; 10], &[0x02]].concat())),
        ("no type", [prefix, &field(2, b"")].concat()),
        ("nothing", prefix.to_vec()),
        ("less than the prefix", b"k8s".to_vec()),
        ("a raw object of JSON", [prefix, &field(2, b"{}")].concat()),
    ] {
        refused(&post(&admin, MAPS, PROTOBUF, body).await, what);
    }
    for (what, body) in [
        ("an array of 2^40 items", vec![0x9b, 0, 0, 1, 0, 0, 0, 0, 0]),
        ("an array of 2^64 items", [&[0x9b][..], &[0xff; 8]].concat()),
        ("a map of 2^64 entries", [&[0xbb][..], &[0xff; 8]].concat()),
        ("a text of 2^64 bytes", [&[0x7b][..], &[0xff; 8], b"x"].concat()),
        ("bytes of 2^64 bytes", [&[0x5b][..], &[0xff; 8], b"x"].concat()),
        ("a text of 4 GiB", [&[0x7a][..], &[0xff; 4], b"x"].concat()),
        ("an array without an end", vec![0x9f; 100]),
        ("a map without an end", [&[0xbf][..], &[0x61, b'a', 0x01].repeat(100)].concat()),
        ("a text of chunks without an end", [&[0x7f][..], &[0x61, b'a'].repeat(1000)].concat()),
        ("a chunk of another type", vec![0x7f, 0x41, b'a', 0xff]),
        ("a big integer", [&[0xc2, 0x5a, 0, 0x10, 0, 0][..], &vec![0xff; 0x10_0000]].concat()),
        ("a simple value", vec![0xf8, 0xff]),
        ("a reserved length", vec![0x1c]),
        ("an end without a beginning", vec![0xff]),
    ] {
        refused(&post(&admin, MAPS, CBOR, body).await, what);
    }
    assert_eq!(admin.get(&format!("{MAPS}?labelSelector=a%3Db")).await.expect(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_and_queries_have_a_maximum_length() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("a")).await.expect(201);
    let encoded = |text: &str| text.replace('=', "%3D").replace(',', "%2C").replace('!', "%21");
    let long = |term: &dyn Fn(usize) -> String, bytes: usize| {
        let mut text = String::new();
        for index in 0.. {
            let term = encoded(&term(index));
            if text.len() + term.len() > bytes {
                break;
            }
            text.push_str(&term);
            text.push_str("%2C");
        }
        text.truncate(text.len() - 3);
        text
    };
    // Every requirement holds for the object, so that all are evaluated.
    let selector = long(&|index| format!("!k{index}"), 60_000);
    let list = admin.get(&format!("{MAPS}?labelSelector={selector}")).await.expect(200);
    let all = admin.get(MAPS).await.expect(200)["items"].clone();
    assert_eq!(list["items"], all);
    let selector = long(&|index| format!("metadata.name!=n{index}"), 60_000);
    let list = admin.get(&format!("{MAPS}?fieldSelector={selector}")).await.expect(200);
    assert_eq!(list["items"], all);
    let broken = format!("{}%3D%3D%3D", "a%2C".repeat(10_000));
    refused(&admin.get(&format!("{MAPS}?labelSelector={broken}")).await, "a long selector");
    let parameters: String = (0..6_000).map(|index| format!("p{index}=1&")).collect();
    admin.get(&format!("{MAPS}?{parameters}")).await.expect(200);
    let parameters = "labelSelector=x&".repeat(3_000);
    admin.get(&format!("{MAPS}?{parameters}")).await.expect(200);
    let parameters = "dryRun=x&".repeat(6_000);
    refused(&post(&admin, &format!("{MAPS}?{parameters}"), JSON, config_map("b").to_string()).await, "many options");

    // HTTP's own limits come before the pipeline, and the answer has no Status.
    let megabyte = "a".repeat(1 << 20);
    for head in [
        format!("GET {MAPS}?labelSelector={megabyte} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        format!("GET {MAPS} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {megabyte}\r\n\r\n"),
        format!("GET {MAPS} HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", "A: b\r\n".repeat(10_000)),
        format!("{megabyte} {MAPS} HTTP/1.1\r\n\r\n"),
    ] {
        let answer = server.exchange(head.as_bytes()).await;
        let code = answer.split(' ').nth(1).unwrap_or_default();
        assert!(answer.is_empty() || ["400", "414", "431"].contains(&code), "{}", shown(&answer));
    }
    assert_eq!(admin.get("/readyz").await.code, 200);
}
