//! Discovery and OpenAPI.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Server;

fn find<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    let list = list.as_array().expect("a list");
    list.iter().find(|entry| entry[field] == name).unwrap_or_else(|| panic!("{name} is not in {list:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_discovery_names_kinds_and_verbs() {
    let server = Server::start().await;
    let admin = server.admin();
    assert_eq!(admin.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = admin.get("/apis").await.expect(200);
    assert_eq!(find(&groups["groups"], "name", "apps")["preferredVersion"]["groupVersion"], "apps/v1");
    assert_eq!(admin.get("/apis/apps").await.expect(200)["kind"], "APIGroup");
    let core = admin.get("/api/v1").await.expect(200);
    let pods = find(&core["resources"], "name", "pods");
    assert_eq!(
        (&pods["kind"], &pods["namespaced"], &pods["shortNames"]),
        (&json!("Pod"), &json!(true), &json!(["po"]))
    );
    assert_eq!(find(&core["resources"], "name", "pods/eviction")["group"], "policy");
    assert_eq!(find(&core["resources"], "name", "namespaces")["namespaced"], false);
    let apps = admin.get("/apis/apps/v1").await.expect(200);
    assert_eq!(find(&apps["resources"], "name", "deployments/scale")["kind"], "Scale");
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregated_discovery_has_an_etag() {
    let server = Server::start().await;
    let admin = server.admin();
    for version in ["v2", "v2beta1"] {
        let accept = format!(
            "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json;q=0.9"
        );
        let answer = admin.get_as("/apis", &accept).await;
        let media_type =
            answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        assert!(media_type.contains(&format!("v={version};as=APIGroupDiscoveryList")), "{media_type}");
        let etag = answer.headers.get("etag").expect("an ETag").to_str().expect("text").to_owned();
        let document = answer.expect(200);
        assert_eq!(document["apiVersion"], format!("apidiscovery.k8s.io/{version}"));
        let apps = document["items"].as_array().expect("groups").iter().find(|g| g["metadata"]["name"] == "apps");
        let deployments = find(&apps.expect("apps")["versions"][0]["resources"], "resource", "deployments");
        assert_eq!(
            (&deployments["scope"], &deployments["singularResource"]),
            (&json!("Namespaced"), &json!("deployment"))
        );
        let headers = [("accept", accept.as_str()), ("if-none-match", etag.as_str())];
        assert_eq!(admin.request(Method::GET, "/apis", &headers, "").await.code, 304);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_documents_are_kept_by_their_hash() {
    let server = Server::start().await;
    let admin = server.admin();
    let index = admin.get("/openapi/v3").await.expect(200);
    let path = "apis/apps/v1";
    let url = index["paths"][path]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    let answer = admin.get(&url).await;
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("cache-control"), "public, immutable");
    assert!(header("expires").ends_with(" GMT"), "{}", header("expires"));
    let etag = header("etag").to_owned();
    assert_eq!(etag, format!("\"{}\"", url.split_once("hash=").expect("a hash").1));
    let known = [("if-none-match", etag.as_str())];
    assert_eq!(admin.request(Method::GET, &url, &known, "").await.code, 304);
    let plain = admin.get("/openapi/v3/apis/apps/v1").await;
    assert_eq!(plain.headers.get("cache-control").and_then(|value| value.to_str().ok()), Some("no-cache, private"));
    assert_eq!(plain.bytes, answer.bytes);
    let old = admin.get("/openapi/v3/apis/apps/v1?hash=OLD").await;
    assert_eq!(old.headers.get("location").and_then(|value| value.to_str().ok()), Some(url.as_str()));
    assert_eq!(old.code, 301);
    let document = answer.expect(200);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
    );
    find(&patch["parameters"], "name", "fieldValidation");
    let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_has_each_served_kind_and_nothing_else() {
    let server = Server::start().await;
    let admin = server.admin();
    let index = admin.get("/openapi/v3").await.expect(200);
    for (path, entry) in index["paths"].as_object().expect("paths") {
        let document = admin.get(entry["serverRelativeURL"].as_str().expect("a URL")).await.expect(200);
        let paths = document["paths"].as_object().expect("paths");
        // A document of discovery has itself alone.
        let is_version = path.rsplit('/').next().is_some_and(|last| last.starts_with('v') && last != "version");
        if !is_version {
            assert_eq!(paths.keys().collect::<Vec<_>>(), [&format!("/{path}/")]);
            continue;
        }
        let resources = admin.get(&format!("/{path}")).await.expect(200);
        let rows = resources["resources"].as_array().expect("resources");
        assert!(!rows.is_empty());
        for row in rows {
            let name = row["name"].as_str().expect("a name");
            let (name, rest) =
                name.split_once('/').map_or((name, String::new()), |(n, s)| (n, format!("/{{name}}/{s}")));
            let scope = if row["namespaced"] == true { "namespaces/{namespace}/" } else { "" };
            let known = format!("/{path}/{scope}{name}{rest}");
            assert!(paths.contains_key(&known), "{known}");
        }
        for place in paths.keys() {
            let name =
                |part: &&str| !part.is_empty() && !part.starts_with('{') && !["namespaces", "watch"].contains(part);
            let parts = place.trim_start_matches(&format!("/{path}")).split('/').find(name);
            let is_known = |part: &str| {
                rows.iter().any(|row| row["name"].as_str().is_some_and(|n| n.split('/').any(|w| w == part)))
            };
            assert!(parts.is_none_or(is_known), "{place}");
        }
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"].get(reference).is_some(), "{reference} in {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_v2_is_served_as_json_and_as_protocol_buffers() {
    let server = Server::start().await;
    let admin = server.admin();
    let document = admin.get("/openapi/v2").await.expect(200);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(find(&patch["parameters"], "name", "fieldValidation")["in"], "query");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = admin.get_as("/openapi/v2", asked).await;
    let media_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
    assert_eq!((answer.code, media_type), (200, Some("application/com.github.proto-openapi.spec.v2.v1.0+protobuf")));
    let has = |text: &str| answer.bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("io.k8s.api.core.v1.PodSpec") && has("x-kubernetes-patch-merge-key"));
    assert_eq!(admin.get_as("/openapi/v2", "text/html").await.code, 406);
}
