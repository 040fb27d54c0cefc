//! Tests of the bodies of requests: their formats, their limits, and what strict decoding reports.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Server, config_map, deployment, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_parsed_by_their_media_type() {
    let server = Server::start().await;
    let admin = server.admin();
    let post = |kind: &'static str, body: String| {
        let admin = admin.clone();
        async move { admin.request(Method::POST, MAPS, &[("content-type", kind)], body).await }
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: b\n";
    assert_eq!(post("application/yaml", yaml.to_owned()).await.expect(201)["data"]["a"], "b");
    let (code, _, message) = post("text/plain", yaml.to_owned()).await.failure();
    assert_eq!(code, 415);
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor";
    assert!(message.ends_with(accepted), "{message}");
    let (code, _, message) = post("application/json", "{".to_owned()).await.failure();
    assert_eq!(code, 400);
    assert!(message.starts_with("the object provided is unrecognized (must be of type ConfigMap)"), "{message}");
    let unknown = [("content-type", "application/apply-patch+json")];
    let answer = admin.request(Method::PATCH, "/api/v1/namespaces/default/configmaps/a", &unknown, yaml).await;
    let (code, _, message) = answer.failure();
    assert_eq!(code, 415);
    assert!(message.ends_with("application/apply-patch+yaml, application/apply-patch+cbor"), "{message}");
}

/// Returns an Event whose message repeats one letter. No field of an Event has a maximum size.
fn event(name: &str, letter: &str, message_bytes: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": name },
        "involvedObject": { "namespace": "default" }, "message": letter.repeat(message_bytes),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_above_one_and_a_half_mebibytes_are_refused_and_change_nothing() {
    const MAX_OBJECT_BYTES: usize = 1536 * 1024;
    let server = Server::start().await;
    let admin = server.admin();
    let refused = (500, String::new(), "etcdserver: request is too large".to_owned());
    let message = |letter: &str, bytes: usize| json!({ "message": letter.repeat(bytes) });
    let replacement =
        |letter: &str, bytes: usize| json!([{ "op": "replace", "path": "/message", "value": letter.repeat(bytes) }]);
    // The size of the stored object without the message. The version is not stored in the object.
    let mut empty = admin.post(EVENTS, &event("a", "x", 1)).await.expect(201);
    empty["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    empty["message"] = "".into();
    let most = MAX_OBJECT_BYTES - empty.to_string().len();

    assert_eq!(admin.post(EVENTS, &event("b", "x", most + 1)).await.failure(), refused);
    let path = format!("{EVENTS}/b");
    assert_eq!(admin.get(&path).await.code, 404);
    let created = admin.post(EVENTS, &event("b", "x", most)).await.expect(201);

    let mut larger = created.clone();
    larger["message"] = "x".repeat(most + 1).into();
    let answer = admin.put(&path, &larger).await;
    assert_eq!(answer.failure(), refused);
    assert!(!answer.json().as_object().expect("a Status").contains_key("reason"), "{}", answer.text());
    assert_eq!(admin.patch(&path, "merge", &message("x", most + 1)).await.failure(), refused);
    assert_eq!(admin.patch(&path, "strategic-merge", &message("x", most + 1)).await.failure(), refused);
    assert_eq!(admin.patch(&path, "json", &replacement("x", most + 1)).await.failure(), refused);
    // Objects of this size are not printed on failure.
    assert!(admin.get(&path).await.expect(200) == created, "a refused write has changed the object");

    let has = |object: &Value, letter: &str| object["message"].as_str() == Some(letter.repeat(most).as_str());
    assert!(has(&admin.put(&path, &event("b", "p", most)).await.expect(200), "p"));
    assert!(has(&admin.patch(&path, "merge", &message("m", most)).await.expect(200), "m"));
    assert!(has(&admin.patch(&path, "strategic-merge", &message("s", most)).await.expect(200), "s"));
    assert!(has(&admin.patch(&path, "json", &replacement("j", most)).await.expect(200), "j"));
    assert!(has(&admin.get(&path).await.expect(200), "j"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_three_mebibytes_are_refused() {
    const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
    let server = Server::start().await;
    let admin = server.admin();
    let refused =
        (413, "RequestEntityTooLarge".to_owned(), format!("Request entity too large: limit is {MAX_BODY_BYTES}"));
    let created = admin.post(EVENTS, &event("a", "x", 1)).await.expect(201);
    let path = format!("{EVENTS}/a");
    let message = |bytes: usize| json!({ "message": "x".repeat(bytes) });
    // The largest body is read, and its object is then refused as too large to store.
    let most = MAX_BODY_BYTES - event("b", "", 0).to_string().len();
    assert_eq!(admin.post(EVENTS, &event("b", "x", most)).await.failure().0, 500);
    assert_eq!(admin.post(EVENTS, &event("b", "x", most + 1)).await.failure(), refused);
    assert_eq!(admin.put(&path, &event("a", "x", most + 1)).await.failure(), refused);
    assert_eq!(admin.patch(&path, "merge", &message(MAX_BODY_BYTES)).await.failure(), refused);
    assert_eq!(admin.patch(&path, "strategic-merge", &message(MAX_BODY_BYTES)).await.failure(), refused);
    assert_eq!(admin.patch(&path, "json", &message(MAX_BODY_BYTES)).await.failure(), refused);
    assert_eq!(admin.get(&path).await.expect(200), created);
    assert_eq!(admin.get(&format!("{EVENTS}/b")).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_maps_have_a_maximum_size_of_their_own() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut large = config_map("large");
    large["data"] = json!({ "key": "x".repeat(1024 * 1024) });
    admin.post(MAPS, &large).await.expect(201);
    large["data"]["key"] = "x".repeat(1024 * 1024 + 1).into();
    let refused = "ConfigMap \"large\" is invalid: []: Too long: may not be more than 1048576 bytes";
    let expected = (422, "Invalid".to_owned(), refused.to_owned());
    assert_eq!(admin.put(&format!("{MAPS}/large"), &large).await.failure(), expected);
    large["metadata"]["name"] = "larger".into();
    assert_eq!(
        admin.post(MAPS, &large).await.failure(),
        (422, "Invalid".to_owned(), refused.replace("large", "larger"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_protobuf() {
    let server = Server::start().await;
    let admin = server.admin();
    let send = |method: Method, path: &'static str, body: String| {
        let admin = admin.clone();
        let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
        async move { admin.request(method, path, &headers, body).await }
    };
    let body = |kind: &str, raw: &str| {
        let type_meta = format!("\n\x02v1\x12{}{kind}", char::from(kind.len() as u8));
        let (type_meta_length, length) = (char::from(type_meta.len() as u8), char::from(raw.len() as u8));
        format!("k8s\0\n{type_meta_length}{type_meta}\x12{length}{raw}\x1a\0\x22\0")
    };
    let map = "\n\x03\n\x01p\x12\x06\n\x01a\x12\x01b";
    let created = send(Method::POST, MAPS, body("ConfigMap", map)).await.expect(201);
    assert_eq!((&created["metadata"]["name"], &created["data"]), (&json!("p"), &json!({ "a": "b" })));
    let (code, _, message) = send(Method::POST, MAPS, body("ConfigMap", "\x08\x01")).await.failure();
    assert_eq!(code, 400, "{message}");
    let (code, _, message) = send(Method::POST, MAPS, body("Secret", map)).await.failure();
    assert_eq!(code, 400, "{message}");
    assert_eq!(send(Method::POST, MAPS, body("Widget", map)).await.failure().0, 415);
    assert_eq!(send(Method::POST, MAPS, "{}".to_owned()).await.failure().0, 400);
    let path = "/api/v1/namespaces/default/configmaps/p";
    let other_uid = body("DeleteOptions", "\x12\x03\n\x01x");
    assert_eq!(send(Method::DELETE, path, other_uid).await.failure().1, "Conflict");
    send(Method::DELETE, path, body("DeleteOptions", "")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_refused_warned_of_or_ignored() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = deployment("fields");
    object["spec"]["surprise"] = true.into();
    let (code, _, message) = admin.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &object).await.failure();
    assert_eq!(code, 400);
    assert!(message.contains("strict decoding error: unknown field \"spec.surprise\""), "{message}");
    let twice = deployment("twice").to_string().replace("\"replicas\":2", "\"replicas\":2,\"replicas\":3");
    let json = [("content-type", "application/json")];
    let path = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let (code, _, message) = admin.request(Method::POST, &path, &json, twice).await.failure();
    assert_eq!(code, 400);
    assert!(message.contains("strict decoding error: duplicate field \"spec.replicas\""), "{message}");
    let warned = admin.post(&format!("{DEPLOYMENTS}?dryRun=All"), &object).await;
    let warning = warned.headers.get("warning").map(|v| v.to_str().expect("text").to_owned());
    assert_eq!(warning.as_deref(), Some("299 - \"unknown field \\\"spec.surprise\\\"\""));
    let ignored = admin.post(&format!("{DEPLOYMENTS}?fieldValidation=Ignore"), &object).await;
    assert!(ignored.headers.get("warning").is_none());
    assert_eq!(ignored.expect(201)["spec"].get("surprise"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_and_strict_errors_are_bounded() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = deployment("fields");
    for i in 0..1000 {
        object["spec"][format!("surprise-{i}-{}", "ü".repeat(1000))] = true.into();
    }
    let warned = admin.post(&format!("{DEPLOYMENTS}?dryRun=All"), &object).await;
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().collect();
    assert_eq!((warned.code, warnings.len()), (201, 16));
    assert!(warnings.iter().all(|warning| warning.len() < 600), "{warnings:?}");
    let (code, _, message) = admin.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &object).await.failure();
    assert!(code == 400 && message.chars().count() < 100 * 300, "{}", message.len());
    let yaml = [("content-type", "application/yaml")];
    let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n{}", "  k: v\n".repeat(10_000));
    let path = format!("{MAPS}?fieldValidation=Strict");
    let (code, _, message) = admin.request(Method::POST, &path, &yaml, text).await.failure();
    assert!(code == 400 && message.matches("already set in map").count() == 100, "{}", message.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_quantities_do_not_decode() {
    let server = Server::start().await;
    let admin = server.admin();
    let with = |cpu: Value| {
        let mut object = pod("q");
        object["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cpu } });
        object
    };
    let path = format!("{PODS}?dryRun=All");
    let (code, reason, message) = admin.post(&path, &with(json!("1 Gi"))).await.failure();
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    assert!(message.contains("spec.containers[0].resources.requests.cpu: quantities must match"), "{message}");
    assert_eq!(admin.post(&path, &with(json!("-1"))).await.failure().0, 422);
    let stored = admin.post(&path, &with(json!("100u"))).await.expect(201);
    assert_eq!(stored["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1m");
    let text = with(json!("number")).to_string().replace("\"number\"", "1e3");
    let stored = admin.request(Method::POST, &path, &[("content-type", "application/json")], text).await.expect(201);
    assert_eq!(stored["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1e3");
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_is_read_as_kubernetes_reads_it() {
    let server = Server::start().await;
    let admin = server.admin();
    let post = async |path: &str, text: &str| {
        admin.request(Method::POST, path, &[("content-type", "application/yaml")], text.to_owned()).await
    };
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: from-yaml\n  labels: &same {app: \"yes\"}\n  annotations: *same\nspec:\n  containers:\n  - {name: c, image: i}\n  volumes:\n  - {name: v, secret: {secretName: s, defaultMode: 0400}}\n";
    let stored = post(PODS, text).await.expect(201);
    assert_eq!(stored["spec"]["volumes"][0]["secret"]["defaultMode"], 256);
    assert_eq!(stored["metadata"]["annotations"]["app"], "yes");
    let map = |rest: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\n{rest}");
    assert_eq!(post(MAPS, &map("  labels: {a: yes}\n")).await.failure().0, 400, "yes is a boolean");
    assert_eq!(post(MAPS, &map("data: [\n")).await.failure().0, 400);
    let twice = map("data:\n  a: \"1\"\n  a: \"2\"\n");
    let (code, _, message) = post(&format!("{MAPS}?fieldValidation=Strict"), &twice).await.failure();
    assert_eq!(code, 400);
    assert!(message.contains("line 7: key \"a\" already set in map"), "{message}");
    let answer = post(MAPS, &twice).await;
    let warning = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert!(warning.contains("already set in map"), "{warning}");
    assert_eq!(answer.expect(201)["data"], json!({ "a": "2" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_decoding_reports_everything_at_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"a":"1","a":"2"},"spec":{},"extra":1}"#;
    let path = format!("{MAPS}?fieldValidation=Strict");
    let answer = admin.request(Method::POST, &path, &[("content-type", "application/json")], text).await;
    let (code, _, message) = answer.failure();
    assert_eq!(code, 400);
    let all = "strict decoding error: duplicate field \"data.a\", unknown field \"spec\", unknown field \"extra\"";
    assert!(message.ends_with(all), "{message}");
    admin.post(MAPS, &config_map("m")).await.expect(201);
    let patch = r#"{"data":{"b":"1","b":"2"},"extra":1}"#;
    let headers = [("content-type", "application/merge-patch+json")];
    let answer = admin.request(Method::PATCH, &format!("{MAPS}/m?fieldValidation=Strict"), &headers, patch).await;
    let (code, _, message) = answer.failure();
    assert_eq!(code, 422, "a patch is invalid, as in Kubernetes");
    assert!(message.ends_with("duplicate field \"data.b\", unknown field \"extra\""), "{message}");
}
