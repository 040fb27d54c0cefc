//! Joining machines: tokens, names, certificates.

use std::sync::Arc;

use http::Method;
use quorate_apiserver::publish_hosts;
use quorate_mvcc::{KeyRange, RangeRequest};
use quorate_pki::{Authorities, JoinToken, Lifetimes, Machine, Pair, details};
use quorate_store::Consistency;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, Client, Server};

const JOIN: &str = "/quorum/join";
const TOKENS: &str = "/quorum/tokens";

/// Starts a server that can sign certificates, with a directory for the machines' keys.
async fn start() -> (Server, TempDir) {
    let server = Server::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authorities = Authorities::open(dir.path(), Lifetimes::default()).expect("authorities");
    server.api.set_authorities(Arc::new(authorities));
    (server, dir)
}

async fn token(server: &Server, wanted: Value) -> JoinToken {
    let created = server.admin().post(TOKENS, &wanted).await.expect(201);
    created["token"].as_str().expect("a token").parse().expect("a join token")
}

fn request(dir: &TempDir, key: &str) -> String {
    let machine = Machine::open(&Pair::new(dir.path(), key)).expect("a key");
    machine.request(&["10.0.0.4".to_owned()]).expect("a request")
}

fn joining(token: &JoinToken, name: &str, request: &str) -> Value {
    json!({
        "token": format!("{}.{}", token.id, token.secret), "role": "worker", "name": name, "request": request,
    })
}

async fn join(client: &Client, token: &JoinToken, name: &str, request: &str) -> Answer {
    client.post(JOIN, &joining(token, name, request)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_certificates_for_a_token_and_renews_them() {
    let (server, dir) = start().await;
    let anonymous = server.anonymous();
    let authority = anonymous.get("/quorum/authority").await;
    let token = token(&server, json!({ "role": "worker" })).await;
    assert_eq!(quorate_pki::Pin::of_certificate(&authority.bytes).expect("a certificate"), token.pin);

    let first = request(&dir, "w1");
    let signed = join(&anonymous, &token, "w1", &first).await.expect(200);
    assert_eq!(signed["authority"], authority.text());
    let [client, serving] = ["client", "serving"]
        .map(|which| details(signed[which].as_str().expect("a certificate").as_bytes()).expect("a certificate"));
    assert_eq!((client.user.as_str(), &client.groups[..]), ("system:node:w1", &["system:nodes".to_owned()][..]));
    assert_eq!(serving.hosts, ["10.0.0.4", "w1"]);
    assert_eq!(client.key_pin, serving.key_pin);
    // A response may be lost, so the same machine may repeat its request.
    join(&anonymous, &token, "w1", &first).await.expect(200);
    let (code, _, message) = join(&anonymous, &token, "w2", &request(&dir, "w2")).await.failure();
    assert!(code == 403 && message.contains("is used up") && !message.contains("w1"), "{message}");

    // A certificate is renewed for the same key only.
    let renew = |request: String| json!({ "request": request });
    let renewed = server.node("w1").post("/quorum/renew", &renew(request(&dir, "w1"))).await.expect(200);
    let renewed = details(renewed["client"].as_str().expect("a certificate").as_bytes()).expect("a certificate");
    assert!(renewed.key_pin == client.key_pin && renewed.serial != client.serial);
    for (client, key) in [(server.node("w1"), "w2"), (server.node("w2"), "w1"), (server.admin(), "w1")] {
        assert_eq!(client.post("/quorum/renew", &renew(request(&dir, key))).await.failure().0, 403);
    }
    assert_eq!(anonymous.post("/quorum/renew", &renew(first)).await.failure().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_machine_admits_one_of_many() {
    let (server, dir) = start().await;
    let token = token(&server, json!({ "role": "worker" })).await;
    let tries = (0..8).map(|i| {
        let (client, token, request) = (server.anonymous(), token.clone(), request(&dir, &format!("key{i}")));
        async move { join(&client, &token, &format!("w{i}"), &request).await.code }
    });
    let codes = futures::future::join_all(tries).await;
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [200, 403, 503].contains(code)), "{codes:?}");
    let listed = server.admin().get(TOKENS).await.expect(200);
    assert_eq!(listed["tokens"][0]["usedBy"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_name_stays_with_its_key() {
    let (server, dir) = start().await;
    let (anonymous, admin) = (server.anonymous(), server.admin());
    let token = token(&server, json!({ "role": "worker", "uses": 10 })).await;
    let node = |name: &str| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    let (own, other) = (request(&dir, "own"), request(&dir, "other"));
    join(&anonymous, &token, "w1", &own).await.expect(200);
    let (code, _, message) = join(&anonymous, &token, "w1", &other).await.failure();
    assert!(code == 409 && message.contains("just joined under this name"), "{message}");
    admin.post("/api/v1/nodes", &node("w1")).await.expect(201);
    let (code, _, message) = join(&anonymous, &token, "w1", &other).await.failure();
    assert!(code == 409 && message.contains("qctl delete node w1"), "{message}");
    join(&anonymous, &token, "w1", &own).await.expect(200);
    // This node did not join with a token.
    admin.post("/api/v1/nodes", &node("w2")).await.expect(201);
    assert_eq!(join(&anonymous, &token, "w2", &other).await.failure().0, 409);
    // One use of a token is one node, and no node has an API server's name.
    let (code, _, message) = join(&anonymous, &token, "w3", &own).await.failure();
    assert!(code == 403 && message.contains("let this machine in as w1"), "{message}");
    for reserved in ["localhost", "kubernetes.default.svc", "10.96.0.1"] {
        assert_eq!(join(&anonymous, &token, reserved, &other).await.failure().0, 403, "{reserved:?}");
    }
    for wrong in ["", "W1", "a b", "../w1"] {
        assert_eq!(join(&anonymous, &token, wrong, &own).await.failure().0, 400, "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_node_cannot_renew_its_certificates() {
    let (server, dir) = start().await;
    let (anonymous, admin) = (server.anonymous(), server.admin());
    let token = token(&server, json!({ "role": "worker", "uses": 10 })).await;
    let renew = async |name: &str| {
        let request = json!({ "request": request(&dir, name) });
        server.node(name).post("/quorum/renew", &request).await.code
    };
    let rows = async || {
        let rows = RangeRequest::new(KeyRange::prefix("/quorate/machines/"));
        let rows = server.api.store().range(&rows, Consistency::Linearizable).await.expect("the rows").kvs;
        rows.iter().map(|row| String::from_utf8_lossy(&row.key).into_owned()).collect::<Vec<_>>()
    };
    for name in ["w1", "w2", "w3"] {
        join(&anonymous, &token, name, &request(&dir, name)).await.expect(200);
        let metadata =
            json!({ "name": name, "finalizers": if name == "w2" { json!(["example.com/hold"]) } else { json!([]) } });
        admin
            .post("/api/v1/nodes", &json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata }))
            .await
            .expect(201);
    }
    admin.delete("/api/v1/nodes/w1", &json!({})).await.expect(200);
    assert_eq!((renew("w1").await, renew("w2").await, renew("w3").await), (403, 200, 200));
    // The row goes with the object, not with the request to delete it.
    admin.delete("/api/v1/nodes/w2", &json!({})).await.expect(200);
    assert_eq!(renew("w2").await, 200);
    admin.patch("/api/v1/nodes/w2", "merge", &json!({ "metadata": { "finalizers": null } })).await.expect(200);
    assert_eq!((renew("w2").await, renew("w3").await), (403, 200));
    assert_eq!(rows().await, ["/quorate/machines/w3"]);
    // A dry run removes nothing, and a Node that joined without a token has no row.
    let dry = admin.request(Method::DELETE, "/api/v1/nodes/w3?dryRun=All", &[], "").await;
    dry.expect(200);
    assert_eq!(renew("w3").await, 200);
    let own = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "by-hand" } });
    admin.post("/api/v1/nodes", &own).await.expect(201);
    admin.delete("/api/v1/nodes/by-hand", &json!({})).await.expect(200);
    // The machine may come back under its name, with a token that has not let it in before.
    let (code, _, message) = join(&anonymous, &token, "w1", &request(&dir, "w1")).await.failure();
    assert!(code == 403 && message.contains("its Node w1 was deleted since"), "{message}");
    let refused = server.node("w1").post("/quorum/renew", &json!({ "request": request(&dir, "w1") })).await.failure();
    assert!(refused.2.contains("the Node w1") && refused.2.contains("new `--token`"), "{refused:?}");
    let new = self::token(&server, json!({ "role": "worker" })).await;
    join(&anonymous, &new, "w1", &request(&dir, "w1")).await.expect(200);
    join(&anonymous, &new, "w1", &request(&dir, "w1")).await.expect(200);
    assert_eq!(renew("w1").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_signed_before_does_not_keep_a_worker_from_renewing() {
    let (server, dir) = start().await;
    let token = token(&server, json!({ "role": "worker" })).await;
    let machine = Machine::open(&Pair::new(dir.path(), "w1")).expect("a key");
    let request = |host: &str| machine.request(&[host.to_owned()]).expect("a request");
    let renew = async |host: &str| server.node("w1").post("/quorum/renew", &json!({ "request": request(host) })).await;
    let hosts = |signed: Value| {
        details(signed["serving"].as_str().expect("a certificate").as_bytes()).expect("a certificate").hosts
    };
    join(&server.anonymous(), &token, "w1", &request("10.0.0.4")).await.expect(200);
    // A new address is recorded like that of the join.
    assert_eq!(hosts(renew("10.0.0.5").await.expect(200)), ["10.0.0.5", "w1"]);
    let member = server.api.store().quorum_status().await.expect("a status").members.remove(0).member;
    let served = ["10.0.0.4", "10.0.0.5"].map(str::to_owned);
    publish_hosts(&server.api, &member.name, &served, &[]).await.expect("published");
    assert_eq!(hosts(renew("10.0.0.5").await.expect(200)), ["w1"]);
    assert_eq!(hosts(renew("10.0.0.5").await.expect(200)), ["w1"], "it is still recorded");
    assert_eq!(renew("10.0.0.4").await.failure().0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_known_by_a_name_may_be_a_worker_too() {
    let (server, dir) = start().await;
    let token = token(&server, json!({ "role": "worker" })).await;
    let member = server.api.store().quorum_status().await.expect("a status").members.remove(0).member;
    let own = [std::net::IpAddr::from([127, 0, 0, 1]), [10, 0, 0, 4].into()];
    let served = ["m1.example", "10.0.0.4", "machine-1"].map(str::to_owned);
    publish_hosts(&server.api, &member.name, &served, &[]).await.expect("published");
    // The address is in the `tls-names` of a master whose machine is not known.
    assert_eq!(join(&server.anonymous(), &token, "machine-1", &request(&dir, "w1")).await.failure().0, 403);
    publish_hosts(&server.api, &member.name, &served, &own).await.expect("published");
    let rows = RangeRequest::new(KeyRange::prefix("/quorate/served/"));
    let rows = server.api.store().range(&rows, Consistency::Linearizable).await.expect("the rows").kvs;
    assert!(String::from_utf8_lossy(&rows[0].value).contains("10.0.0.4"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_revoked_and_stored_without_their_secrets() {
    let (server, dir) = start().await;
    let admin = server.admin();
    let wanted = json!({ "role": "worker", "uses": 3, "ttlSeconds": 600, "description": "rack 7" });
    let created = admin.post(TOKENS, &wanted).await.expect(201);
    let token: JoinToken = created["token"].as_str().expect("a token").parse().expect("a join token");
    let command = created["command"].as_str().expect("a line");
    assert!(command.starts_with("quorate agent --server ") && command.ends_with(&token.to_string()), "{command}");
    let listed = admin.get(TOKENS).await.expect(200);
    assert_eq!((&listed["tokens"][0]["id"], &listed["tokens"][0]["uses"]), (&json!(token.id), &json!(3)));
    assert!(!listed.to_string().contains(&token.secret));
    let all = RangeRequest::new(KeyRange::prefix("/"));
    let all = server.api.store().range(&all, Consistency::Linearizable).await.expect("everything").kvs;
    let contains = |bytes: &[u8]| bytes.windows(token.secret.len()).any(|part| part == token.secret.as_bytes());
    assert!(all.iter().all(|kv| !contains(&kv.key) && !contains(&kv.value)), "the secret is stored");

    for client in [server.node("w1"), server.user("jane")] {
        assert_eq!(client.get(TOKENS).await.failure().0, 403);
        assert_eq!(client.post(TOKENS, &wanted).await.failure().0, 403);
        let revoked = client.request(Method::DELETE, &format!("{TOKENS}/{}", token.id), &[], "").await;
        assert_eq!(revoked.failure().0, 403);
    }
    let path = format!("{TOKENS}/{}", token.id);
    admin.request(Method::DELETE, &path, &[], "").await.expect(200);
    assert_eq!(admin.request(Method::DELETE, &path, &[], "").await.failure().0, 404);
    let (code, _, message) = join(&server.anonymous(), &token, "w1", &request(&dir, "w1")).await.failure();
    assert!(code == 401 && message.contains("expired or was revoked"), "{message}");
    for wrong in [
        json!({ "role": "master", "uses": 2 }),
        json!({ "role": "master", "ttlSeconds": 0 }),
        json!({ "role": "worker", "uses": 0 }),
        json!({ "role": "worker", "replaces": "m1" }),
        json!({ "role": "king" }),
    ] {
        assert_eq!(admin.post(TOKENS, &wrong).await.failure().0, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_strangers_do_not_block_joins() {
    let (server, dir) = start().await;
    let anonymous = server.anonymous();
    let token = token(&server, json!({ "role": "worker" })).await;
    let stalled = futures::future::join_all((0..40).map(|_| anonymous.stall(JOIN))).await;
    join(&anonymous, &token, "w1", &request(&dir, "w1")).await.expect(200);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_no_host_of_a_master_or_a_service() {
    let (server, dir) = start().await;
    let anonymous = server.anonymous();
    let token = token(&server, json!({ "role": "worker" })).await;
    let member = server.api.store().quorum_status().await.expect("a status").members.remove(0).member;
    // What a former master served is free again.
    for (master, hosts) in [(member.name.as_str(), ["LB.example", "10.0.0.100"]), ("gone", ["old.example", "10.0.0.9"])]
    {
        publish_hosts(&server.api, master, &hosts.map(str::to_owned), &[]).await.expect("published");
    }
    let machine = Machine::open(&Pair::new(dir.path(), "w1")).expect("a key");
    let request = |host: &str| machine.request(&[host.to_owned()]).expect("a request");
    for (host, why) in [("10.0.0.100", "`tls-names`"), ("10.96.0.1", "`service-cidr`"), ("lb.example", "no other name")]
    {
        let (code, _, message) = join(&anonymous, &token, "w1", &request(host)).await.failure();
        assert!(code == 403 && message.contains(why), "{message}");
    }
    // A refused machine has neither used the token nor taken the name.
    let listed = server.admin().get(TOKENS).await.expect(200);
    assert_eq!(listed["tokens"][0]["usedBy"], json!([]));
    // A stranger learns nothing about the hosts.
    let wrong = JoinToken::new(token.pin.clone());
    assert_eq!(join(&anonymous, &wrong, "w1", &request("10.0.0.100")).await.failure().0, 401);
    let signed = join(&anonymous, &token, "w1", &request("10.0.0.9")).await.expect(200);
    let serving = details(signed["serving"].as_str().expect("a certificate").as_bytes()).expect("a certificate");
    assert_eq!(serving.hosts, ["10.0.0.9", "w1"]);
    let (code, _, message) =
        server.node("w1").post("/quorum/renew", &json!({ "request": request("10.0.0.100") })).await.failure();
    assert!(code == 403 && message.contains("`tls-names`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_newer_machines_are_understood() {
    let (server, dir) = start().await;
    let token = token(&server, json!({ "role": "worker" })).await;
    let mut body = joining(&token, "w1", &request(&dir, "w1"));
    body["fieldOfTheFuture"] = json!(true);
    server.anonymous().post(JOIN, &body).await.expect(200);
    let renewal = json!({ "request": request(&dir, "w1"), "fieldOfTheFuture": true });
    server.node("w1").post("/quorum/renew", &renewal).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_join_requests_are_bounded() {
    let (server, dir) = start().await;
    let anonymous = server.anonymous();
    assert_eq!(anonymous.request(Method::POST, JOIN, &[], vec![b' '; 64 << 10]).await.failure().0, 413);
    assert_eq!(anonymous.request(Method::POST, JOIN, &[], "{}").await.failure().0, 400);
    let unsigned = request(&dir, "w1").replacen('M', "N", 1);
    let token = token(&server, json!({ "role": "worker" })).await;
    assert_eq!(join(&anonymous, &token, "w1", &unsigned).await.failure().0, 400);
    // A server without authorities cannot let machines join.
    let bare = Server::start().await;
    assert_eq!(bare.anonymous().get("/quorum/authority").await.failure().0, 404);
    assert_eq!(bare.admin().post(TOKENS, &json!({ "role": "worker" })).await.failure().0, 404);
}
