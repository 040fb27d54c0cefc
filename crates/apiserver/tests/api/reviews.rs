//! Reviews: questions about users and permissions, which are answered and not stored.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Server, pod};

const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const SELF_ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const LOCAL_ACCESS: &str = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
const SELF_RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const TOKEN: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Returns the status of a review with this spec.
async fn status(client: &Client, path: &str, spec: Value) -> Value {
    client.post(path, &json!({ "spec": spec })).await.expect(201)["status"].take()
}

async fn resource(client: &Client, attributes: Value) -> Value {
    status(client, SELF_ACCESS, json!({ "resourceAttributes": attributes })).await
}

async fn path(client: &Client, verb: &str, path: &str) -> Value {
    status(client, SELF_ACCESS, json!({ "nonResourceAttributes": { "verb": verb, "path": path } })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_may_everything_and_others_only_ask_about_themselves() {
    let server = Server::start().await;
    let (admin, jane) = (server.admin(), server.user("jane"));
    let (yes, no) = (json!({ "allowed": true }), json!({ "allowed": false }));
    for attributes in [
        json!({ "verb": "get", "resource": "pods", "namespace": "default" }),
        json!({ "verb": "*", "group": "*", "resource": "*" }),
        json!({ "verb": "impersonate", "resource": "users", "name": "someone" }),
        json!({ "verb": "use", "group": "nowhere.example", "resource": "nothings", "subresource": "part" }),
    ] {
        assert_eq!(resource(&admin, attributes.clone()).await, yes, "{attributes}");
        assert_eq!(resource(&jane, attributes.clone()).await, no, "{attributes}");
    }
    for (verb, url, is_janes) in [
        ("get", "/version", true),
        ("get", "/apis/apps/v1", true),
        ("get", "/quorum", true),
        ("post", "/apis", false),
        ("get", "/quorum/backup", false),
        ("get", "/quorum/tokens", false),
        ("get", "/nowhere", false),
        ("get", "/api/v1/nodes", false),
        ("?", "/version", false),
    ] {
        assert_eq!(path(&admin, verb, url).await, yes, "{verb} {url}");
        assert_eq!(path(&jane, verb, url).await, json!({ "allowed": is_janes }), "{verb} {url}");
    }
    let spec = json!({ "user": "jane", "resourceAttributes": { "verb": "get", "resource": "pods" } });
    for url in [ACCESS, LOCAL_ACCESS, TOKEN] {
        assert_eq!(jane.post(url, &json!({ "spec": spec })).await.failure().0, 403, "{url}");
    }
    assert_eq!(server.anonymous().post(SELF, &json!({})).await.failure().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_of_others_are_answered_by_their_groups() {
    let server = Server::start().await;
    let admin = server.admin();
    let ask = async |groups: &[&str], what: Value| {
        let mut spec = json!({ "user": "someone", "groups": groups });
        spec.as_object_mut().expect("fields").extend(what.as_object().expect("fields").clone());
        status(&admin, ACCESS, spec).await["allowed"] == true
    };
    let pods = json!({ "resourceAttributes": { "verb": "list", "resource": "pods" } });
    assert!(ask(&["system:masters"], pods.clone()).await);
    assert!(!ask(&["system:authenticated"], pods).await);
    let own = json!({ "resourceAttributes": {
        "verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews",
    }});
    assert!(ask(&["system:authenticated"], own.clone()).await);
    assert!(!ask(&[], own).await, "this user has proved nothing");
    let page = |path: &str| json!({ "nonResourceAttributes": { "verb": "get", "path": path } });
    assert!(ask(&["system:unauthenticated"], page("/healthz")).await);
    assert!(!ask(&["system:unauthenticated"], page("/api")).await);
    let local = json!({ "user": "someone", "groups": ["system:masters"], "resourceAttributes": {
        "verb": "get", "resource": "pods", "namespace": "default",
    }});
    let answered = admin.post(LOCAL_ACCESS, &json!({ "spec": local })).await.expect(201);
    assert_eq!(answered["status"], json!({ "allowed": true }));
    assert_eq!((&answered["metadata"]["namespace"], &answered["spec"]), (&json!("default"), &local));
    assert_eq!(answered["kind"], "LocalSubjectAccessReview");
}

/// A node gets the answer that its request would get.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_answered_by_the_node_authorizer() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("a"));
    let mut bound = pod("mine");
    bound["spec"]["nodeName"] = "a".into();
    bound["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "known" } }]);
    admin.post("/api/v1/namespaces/default/pods", &bound).await.expect(201);
    let secret = |name: &str| json!({ "verb": "get", "resource": "secrets", "namespace": "default", "name": name });
    assert_eq!(resource(&node, secret("known")).await, json!({ "allowed": true }));
    let refused = resource(&node, secret("other")).await;
    let (_, _, message) = node.get("/api/v1/namespaces/default/secrets/other").await.failure();
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(refused["allowed"] == false && message.ends_with(reason), "{refused} {message}");
    let pods = |selector: Value| json!({ "verb": "list", "resource": "pods", "fieldSelector": selector });
    let on = |operator: &str, node: &str| json!({ "key": "spec.nodeName", "operator": operator, "values": [node] });
    for (selector, is_allowed) in [
        (json!({ "rawSelector": "spec.nodeName=a" }), true),
        (json!({ "requirements": [on("In", "a")] }), true),
        (json!({ "rawSelector": "spec.nodeName=b" }), false),
        (json!({ "requirements": [on("NotIn", "a")] }), false),
    ] {
        let answered = resource(&node, pods(selector.clone())).await;
        assert_eq!(
            (&answered["allowed"], &answered["evaluationError"]),
            (&json!(is_allowed), &Value::Null),
            "{selector}"
        );
    }
    let unknown = resource(&node, pods(json!({ "requirements": [on("In", "a"), on("Exists", "")] }))).await;
    assert_eq!(unknown["allowed"], true, "{unknown}");
    let problem = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
    assert_eq!(unknown["evaluationError"], problem);
    let delegated = json!({ "user": "x", "resourceAttributes": { "verb": "get", "resource": "nodes" } });
    assert_eq!(status(&node, ACCESS, delegated).await, json!({ "allowed": false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_list_what_is_allowed() {
    let server = Server::start().await;
    let rules = async |client: &Client| status(client, SELF_RULES, json!({ "namespace": "default" })).await;
    let all = rules(&server.admin()).await;
    assert_eq!(all["resourceRules"][0], json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
    assert_eq!(all["nonResourceRules"][0], json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    assert_eq!(all["incomplete"], false);
    let jane = server.user("jane");
    let few = rules(&jane).await;
    let list = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).expect("texts") };
    let mut count = 0;
    for rule in few["resourceRules"].as_array().expect("rules") {
        for (group, name) in list(&rule["apiGroups"])
            .iter()
            .flat_map(|g| list(&rule["resources"]).into_iter().map(move |n| (g.clone(), n)))
        {
            let attributes = json!({ "verb": rule["verbs"][0], "group": group, "resource": name });
            assert_eq!(resource(&jane, attributes).await["allowed"], true, "{group} {name}");
            count += 1;
        }
    }
    for rule in few["nonResourceRules"].as_array().expect("rules") {
        for url in list(&rule["nonResourceURLs"]) {
            let verb = rule["verbs"][0].as_str().expect("a verb");
            // The second is the path of a version or of a check.
            let url = url.replace('*', if url.starts_with("/openapi") { "v3" } else { "apps" });
            assert_eq!(path(&jane, verb, &url).await["allowed"], true, "{verb} {url}");
            count += 1;
        }
    }
    assert!(count > 15, "{count} rules");
    let node = rules(&server.node("a")).await;
    assert_eq!(node["incomplete"], true);
    assert_eq!(node["evaluationError"], "node authorizer does not support user rule resolution");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_learn_who_they_are_and_no_token_is_known() {
    let server = Server::start().await;
    let answered = server.user("jane").post(SELF, &json!({})).await.expect(201);
    let user = json!({ "username": "jane", "groups": ["system:authenticated"] });
    assert_eq!(answered["status"], json!({ "userInfo": user }));
    assert_eq!(
        (&answered["apiVersion"], &answered["kind"]),
        (&json!("authentication.k8s.io/v1"), &json!("SelfSubjectReview"))
    );
    let unknown = status(&server.admin(), TOKEN, json!({ "token": "abc" })).await;
    assert_eq!(unknown, json!({ "authenticated": false, "user": {}, "error": "invalid bearer token" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_checked_and_never_stored() {
    let server = Server::start().await;
    let admin = server.admin();
    let before = server.api.store().revision();
    let pods = json!({ "verb": "get", "resource": "pods" });
    let cases = [
        (
            SELF_ACCESS,
            json!({ "spec": {} }),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (
            SELF_ACCESS,
            json!({ "spec": { "resourceAttributes": pods, "nonResourceAttributes": { "path": "/" } } }),
            "cannot be specified in combination with resourceAttributes",
        ),
        (SELF_ACCESS, json!({ "metadata": { "name": "x" }, "spec": { "resourceAttributes": pods } }), "must be empty"),
        (ACCESS, json!({ "spec": { "resourceAttributes": pods } }), "at least one of user or group must be specified"),
        (LOCAL_ACCESS, json!({ "spec": { "user": "x", "resourceAttributes": pods } }), "must match metadata.namespace"),
        (
            LOCAL_ACCESS,
            json!({ "spec": { "user": "x", "nonResourceAttributes": { "path": "/" } } }),
            "disallowed on this kind of request",
        ),
        (
            SELF_ACCESS,
            json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods", "fieldSelector": {} } } }),
            "when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
        ),
    ];
    for (url, body, expected) in cases {
        let (code, reason, message) = admin.post(url, &body).await.failure();
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
        assert!(message.ends_with(expected), "{message}");
    }
    for (url, body) in [(SELF_RULES, json!({ "spec": {} })), (TOKEN, json!({ "spec": {} }))] {
        assert_eq!(admin.post(url, &body).await.failure().0, 400, "{url}");
    }
    let elsewhere =
        json!({ "metadata": { "namespace": "other" }, "spec": { "user": "x", "resourceAttributes": pods } });
    assert_eq!(admin.post(LOCAL_ACCESS, &elsewhere).await.failure().0, 400);
    for url in [ACCESS, SELF_ACCESS, LOCAL_ACCESS, SELF_RULES, SELF, TOKEN] {
        assert_eq!(admin.get(url).await.failure().0, 405, "{url}");
        assert_eq!(admin.request(Method::DELETE, url, &[], "").await.failure().0, 405, "{url}");
        assert_eq!(admin.get(&format!("{url}/x")).await.failure().0, 405, "{url}/x");
    }
    admin.post(SELF, &json!({})).await.expect(201);
    let local = crate::harness::local(&server.api);
    let (kind, is_namespaced) =
        local.resource_of("authorization.k8s.io/v1", "SelfSubjectAccessReview").expect("a kind");
    assert!(!is_namespaced);
    let asked = local.create(&kind, None, json!({ "spec": { "resourceAttributes": pods } })).await.expect("an answer");
    assert_eq!(asked["status"]["allowed"], true);
    assert_eq!(server.api.store().revision(), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_no_table() {
    let server = Server::start().await;
    let admin = server.admin();
    let ask = |resource: &'static str, kind: &'static str, spec: Value, accept: &'static str| {
        let admin = admin.clone();
        async move {
            let group =
                if kind == "SelfSubjectReview" { "authentication.k8s.io/v1" } else { "authorization.k8s.io/v1" };
            let body = json!({ "apiVersion": group, "kind": kind, "spec": spec }).to_string();
            let headers = [("content-type", "application/json"), ("accept", accept)];
            admin.request(Method::POST, &format!("/apis/{group}/{resource}"), &headers, body).await
        }
    };
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const EITHER: &str = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json";
    let access = json!({ "user": "jane", "nonResourceAttributes": { "path": "/", "verb": "get" } });
    let own = json!({ "nonResourceAttributes": { "path": "/", "verb": "get" } });
    for (resource, kind, spec) in [
        ("selfsubjectreviews", "SelfSubjectReview", json!({})),
        ("subjectaccessreviews", "SubjectAccessReview", access),
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", own),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview", json!({ "namespace": "default" })),
    ] {
        let (code, reason, _) = ask(resource, kind, spec.clone(), TABLE).await.failure();
        assert_eq!((code, reason.as_str()), (406, "NotAcceptable"), "{kind}");
        assert_eq!(ask(resource, kind, spec, EITHER).await.expect(201)["kind"], kind);
    }
    assert_eq!(admin.get_as("/api/v1/namespaces/default", TABLE).await.expect(200)["kind"], "Table");
}
