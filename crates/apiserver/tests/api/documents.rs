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
async fn discovery_agrees_with_kubernetes() {
    let text = include_str!("../../../registry/testdata/discovery.json");
    let kubernetes: Value = serde_json::from_str(text).expect("JSON");
    let server = Server::start().await;
    let admin = server.admin();
    for (path, group_version) in [("/api/v1", "v1"), ("/apis/apps/v1", "apps/v1")] {
        let ours = admin.get(path).await.expect(200);
        for mine in ours["resources"].as_array().expect("a list") {
            let name = mine["name"].as_str().expect("a name");
            let other = find(&kubernetes[group_version], "name", name);
            for field in ["kind", "namespaced", "shortNames", "categories", "group", "version"] {
                assert_eq!(mine.get(field), other.get(field), "{field} of {name}");
            }
        }
    }
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
async fn openapi_lists_field_validation() {
    let server = Server::start().await;
    let admin = server.admin();
    let index = admin.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let document = admin.get(&url).await.expect(200);
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
async fn openapi_v2_lists_patch_parameters_for_old_clients() {
    let server = Server::start().await;
    let admin = server.admin();
    let document = admin.get("/openapi/v2").await.expect(200);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(find(&patch["parameters"], "name", "fieldValidation")["in"], "query");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = admin.get_as("/openapi/v2", asked).await;
    let media_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
    assert_eq!((answer.code, media_type), (200, Some("application/com.github.proto-openapi.spec.v2.v1.0+protobuf")));
    assert!(answer.bytes.starts_with(b"\n\x032.0"), "the version comes first");
}
