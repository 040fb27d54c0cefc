//! Resource quotas: each write is charged in its own transaction.

use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_apiserver::{Api, LocalClient, bootstrap};
use quorate_store::Store;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Server, local};

const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
const CONFIG_MAPS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "configmaps");
const SERVICES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "services");
const QUOTAS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "resourcequotas");
const DEFAULT: Option<&str> = Some("default");

async fn store() -> Store {
    let store = Store::memory();
    bootstrap(&master(&store)).await.expect("the cluster's first objects");
    store
}

/// Returns the API of one master. Masters share the store and nothing else.
fn master(store: &Store) -> Api {
    Api::new(store.clone(), quorate_registry::builtin())
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": cpu}}}]}})
}

/// Creates a quota of which nothing is used.
async fn limit(client: &LocalClient, name: &str, hard: Value) {
    let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
    client.create(&QUOTAS, DEFAULT, quota).await.expect("created");
    measure(client, name, &hard).await;
}

/// Writes the status that the controller would write for an empty namespace.
async fn measure(client: &LocalClient, name: &str, hard: &Value) {
    let mut used = hard.clone();
    used.as_object_mut().expect("limits").values_mut().for_each(|amount| *amount = json!("0"));
    let status = json!({"status": {"hard": hard, "used": used}});
    client.patch_merge(&QUOTAS, DEFAULT, name, Some("status"), status).await.expect("measured");
}

async fn used(client: &LocalClient, name: &str) -> Value {
    client.get(&QUOTAS, DEFAULT, name).await.expect("the quota")["status"]["used"].clone()
}

fn refusal(result: Result<Value, Status>) -> String {
    let status = result.expect_err("it is refused");
    assert_eq!(status.reason, Reason::Forbidden, "{}", status.message);
    status.message
}

/// Creates a hundred pods at the same time through these masters, in two quotas. The smaller one admits forty.
async fn crowd(masters: &[Api], store: &Store) {
    let client = local(&masters[0]);
    limit(&client, "many", json!({"pods": "70", "requests.cpu": "100"})).await;
    limit(&client, "few", json!({"requests.cpu": "10", "count/pods": "60"})).await;
    let mut creations = JoinSet::new();
    for number in 0..100 {
        let client = local(&masters[number % masters.len()]);
        creations.spawn(async move { client.create(&PODS, DEFAULT, pod(&format!("p{number}"), "250m")).await });
    }
    let results = creations.join_all().await;
    let (created, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((created.len(), refused.len()), (40, 60));
    for refused in refused {
        let message = refusal(refused);
        let expected =
            "exceeded quota: few, requested: requests.cpu=250m, used: requests.cpu=10, limited: requests.cpu=10";
        assert!(message.ends_with(expected), "{message}");
    }
    assert_eq!(used(&client, "many").await, json!({"pods": "40", "requests.cpu": "10"}));
    assert_eq!(used(&client, "few").await, json!({"requests.cpu": "10", "count/pods": "40"}));
    // The usage is that of the pods at every revision.
    let key = "/registry/core/resourcequotas/default/few";
    let history = quorate_mvcc::RangeRequest::new(quorate_mvcc::KeyRange::key(key));
    let last = store.read_local(&history).expect("read").kvs.remove(0).mod_revision;
    let pods = quorate_mvcc::RangeRequest::new(quorate_mvcc::KeyRange::prefix("/registry/core/pods/default/"));
    for revision in (1..=last.0).rev().take(20).map(quorate_api::Revision) {
        let quota = store.read_local(&history.clone().at(revision)).expect("read").kvs.remove(0).value;
        let quota: Value = serde_json::from_slice(&quota).expect("JSON");
        let count = store.read_local(&pods.clone().at(revision)).expect("read").kvs.len();
        assert_eq!(quota["status"]["used"]["count/pods"], count.to_string(), "at revision {revision}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_clients_of_one_master_do_not_exceed_a_quota() {
    let store = store().await;
    crowd(&[master(&store)], &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_clients_of_three_masters_do_not_exceed_a_quota() {
    let store = store().await;
    crowd(&[master(&store), master(&store), master(&store)], &store).await;
}

#[tokio::test]
async fn a_quota_is_charged_only_for_what_is_written() {
    let store = store().await;
    let client = local(&master(&store));
    let quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "2", "services.nodeports": "2"}}});
    client.create(&QUOTAS, DEFAULT, quota).await.expect("created");
    let map = |name: &str| json!({"metadata": {"name": name}});
    // The controller has accepted the limits and has not measured the usage yet.
    let accepted = json!({"status": {"hard": {"count/configmaps": "2", "services.nodeports": "2"}}});
    client.patch_merge(&QUOTAS, DEFAULT, "q", Some("status"), accepted).await.expect("accepted");
    let unknown = refusal(client.create(&CONFIG_MAPS, DEFAULT, map("a")).await);
    let expected = "configmaps \"a\" is forbidden: status unknown for quota: q, resources: count/configmaps";
    assert_eq!(unknown, expected);
    measure(&client, "q", &json!({"count/configmaps": "2", "services.nodeports": "2"})).await;
    client.create(&CONFIG_MAPS, DEFAULT, map("a")).await.expect("created");
    let taken = client.create(&CONFIG_MAPS, DEFAULT, map("a")).await.expect_err("it exists");
    assert_eq!(taken.reason, Reason::AlreadyExists);
    client.patch_merge(&CONFIG_MAPS, DEFAULT, "a", None, json!({"data": {"k": "v"}})).await.expect("changed");
    let counts = |maps: &str, ports: &str| json!({"count/configmaps": maps, "services.nodeports": ports});
    assert_eq!(used(&client, "q").await, counts("1", "0"));

    let service = |name: &str, kind: &str, ports: usize| {
        let ports: Vec<Value> = (0..ports).map(|n| json!({"name": format!("p{n}"), "port": 80 + n})).collect();
        json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": ports}})
    };
    client.create(&SERVICES, DEFAULT, service("s", "ClusterIP", 2)).await.expect("created");
    client.create(&SERVICES, DEFAULT, service("t", "NodePort", 1)).await.expect("created");
    assert_eq!(used(&client, "q").await, counts("1", "1"));
    let change = json!({"spec": {"type": "NodePort"}});
    let refused = refusal(client.patch_merge(&SERVICES, DEFAULT, "s", None, change.clone()).await);
    let expected = "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, \
                    limited: services.nodeports=2";
    assert!(refused.ends_with(expected), "{refused}");
    let fewer = json!({"spec": {"type": "NodePort", "ports": [{"name": "p0", "port": 80}]}});
    client.patch_merge(&SERVICES, DEFAULT, "s", None, fewer).await.expect("it fits");
    assert_eq!(used(&client, "q").await, counts("1", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_checked_and_not_charged() {
    let server = Server::start().await;
    let (admin, client) = (server.admin(), local(&server.api));
    limit(&client, "q", json!({"pods": "1"})).await;
    let path = "/api/v1/namespaces/default/pods";
    let mut pod = pod("p", "1");
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    admin.post(&format!("{path}?dryRun=All"), &pod).await.expect(201);
    assert_eq!(used(&client, "q").await, json!({"pods": "0"}));
    admin.post(path, &pod).await.expect(201);
    pod["metadata"]["name"] = "second".into();
    let (code, reason, message) = admin.post(&format!("{path}?dryRun=All"), &pod).await.failure();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    let expected = "pods \"second\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(message, expected);
}
