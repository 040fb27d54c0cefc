use serde_json::{Value, json};

use crate::server::{Behaviour, Recorded, Server};

fn reviews(request: &Recorded) -> Option<(u16, Value)> {
    let attributes = &request.body["spec"]["resourceAttributes"];
    let status = match request.path.as_str() {
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" if attributes["resource"] == "pods" => {
            json!({"allowed": true})
        }
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => json!({"allowed": false, "reason": "no rule"}),
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews" => json!({"incomplete": false, "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}], "nonResourceRules": []}),
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
            json!({"userInfo": {"username": "jane", "groups": ["a", "b"], "extra": {"k": ["v"]}}})
        }
        _ => return None,
    };
    Some((201, json!({"kind": "Review", "status": status})))
}

#[tokio::test]
async fn access_is_reviewed_by_the_server() {
    let server = Server::start(Behaviour::answers(reviews)).await;
    let ran = server.qctl(&["-n", "ns", "auth", "can-i", "get", "po/web", "--subresource=log"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "yes\n", ""));
    let asked = server.requests().pop().expect("a request").body;
    let attributes =
        json!({"verb": "get", "group": "", "resource": "pods", "name": "web", "subresource": "log", "namespace": "ns"});
    assert_eq!(asked["spec"], json!({"resourceAttributes": attributes}));

    let ran = server.qctl(&["auth", "can-i", "create", "deploy", "-A"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (1, "no - no rule\n", ""));
    let ran = server.qctl(&["auth", "can-i", "-q", "fly", "deploy"], "").await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (1, "", "Warning: verb 'fly' is not a known verb\n\n")
    );
    server.qctl(&["auth", "can-i", "get", "/logs/"], "").await;
    let asked = server.requests().pop().expect("a request").body;
    assert_eq!(asked["spec"], json!({"nonResourceAttributes": {"verb": "get", "path": "/logs/"}}));
    let ran = server.qctl(&["auth", "can-i", "--list"], "").await;
    let table = "Resources   Non-Resource URLs   Resource Names   Verbs\n*.*         []                  []               [*]\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (0, table));
}

#[tokio::test]
async fn the_user_is_shown_with_groups() {
    let server = Server::start(Behaviour::answers(reviews)).await;
    let ran = server.qctl(&["auth", "whoami"], "").await;
    let table = "ATTRIBUTE   VALUE\nUsername    jane\nGroups      [a b]\nExtra: k    [v]\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, table, ""));
    let ran = server.qctl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], "").await;
    assert_eq!(ran.stdout, "jane");
}

#[tokio::test]
async fn a_server_without_reviews_is_named() {
    let server = Server::start(Behaviour::answers(|_| None)).await;
    for (args, api) in [
        (&["whoami"][..], "selfsubjectreviews"),
        (&["can-i", "get", "pods"], "selfsubjectaccessreviews"),
        (&["can-i", "--list"], "selfsubjectrulesreviews"),
    ] {
        let ran = server.qctl(&[&["auth"][..], args].concat(), "").await;
        let message = format!("error: the {api} API is not enabled in the cluster; upgrade its masters\n");
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", message), "{args:?}");
    }
}
