//! Tests of the in-process client, and of the official Rust client.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use quorate_api::{GroupVersionResource, Reason};
use quorate_apiserver::bootstrap;
use serde_json::json;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Server, config_map, deployment, local, pod};

const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
const DEPLOYMENTS: GroupVersionResource = GroupVersionResource::from_static("apps", "v1", "deployments");

#[tokio::test(flavor = "multi_thread")]
async fn the_local_client_passes_the_pipeline() {
    let server = Server::start().await;
    let client = local(&server.api);
    let default = Some("default");
    let created = client.create(&PODS, default, pod("p")).await.expect("created");
    assert_eq!(client.get(&PODS, default, "p").await.expect("read"), created);
    let refused = client.create(&PODS, default, pod("p")).await.expect_err("it exists");
    assert_eq!(refused.reason, Reason::AlreadyExists);
    let uid = created["metadata"]["uid"].as_str().expect("a uid");
    let bound = client.bind("default", "p", uid, "n").await.expect("bound");
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert!(bound["metadata"]["resourceVersion"].is_string());
    let status = json!({ "status": { "phase": "Running" } });
    let patched = client.patch_merge(&PODS, default, "p", Some("status"), status).await.expect("patched");
    assert_eq!(patched["status"]["phase"], "Running");
    let stale = client.update(&PODS, default, "p", None, bound).await.expect_err("it is stale");
    assert_eq!(stale.reason, Reason::Conflict);
    let marked = client.delete(&PODS, default, "p", json!({})).await.expect("marked");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    client.delete(&PODS, default, "p", json!({ "gracePeriodSeconds": 0 })).await.expect("deleted");
    let gone = client.get(&PODS, default, "p").await.expect_err("it is gone");
    assert_eq!(gone.reason, Reason::NotFound);
    client.create(&DEPLOYMENTS, default, deployment("d")).await.expect("created");
    let scaled = json!({ "spec": { "replicas": 3 } });
    let scaled = client.patch_merge(&DEPLOYMENTS, default, "d", Some("scale"), scaled).await.expect("scaled");
    assert_eq!(scaled["spec"]["replicas"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bootstrap_changes_nothing() {
    let server = Server::start().await;
    let before = server.api.store().revision();
    bootstrap(&server.api).await.expect("it runs again");
    assert_eq!(server.api.store().revision(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_is_a_client() {
    let server = Server::start().await;
    let client = server.kube();
    let version = client.apiserver_version().await.expect("a version");
    assert_eq!(version.minor, "36");
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client.clone(), "default");
    let object: ConfigMap = serde_json::from_value(config_map("from-kube")).expect("a map");
    let created = maps.create(&PostParams::default(), &object).await.expect("created");
    let mut events = std::pin::pin!(watcher(maps.clone(), watcher::Config::default()).applied_objects_name());
    assert_eq!(next(&mut events).await, "from-kube");
    let patch = json!({ "data": { "key": "new" } });
    maps.patch("from-kube", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    assert_eq!(next(&mut events).await, "from-kube");
    let error = maps.create(&PostParams::default(), &created).await.expect_err("it has a version");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 400));
    maps.delete("from-kube", &DeleteParams::default()).await.expect("deleted");
    assert!(maps.get_opt("from-kube").await.expect("read").is_none());
    let deployments: kube::Api<Deployment> = kube::Api::namespaced(client.clone(), "default");
    let object: Deployment = serde_json::from_value(deployment("d")).expect("a deployment");
    deployments.create(&PostParams::default(), &object).await.expect("created");
    let scale = deployments.get_scale("d").await.expect("a scale");
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(2));
    let pods: kube::Api<Pod> = kube::Api::all(client);
    assert!(pods.list(&ListParams::default().limit(5)).await.expect("a list").items.is_empty());
}

async fn next(events: &mut (impl futures::Stream<Item = String> + Unpin)) -> String {
    timeout(DEADLINE, events.next()).await.expect("an event in time").expect("an event")
}

/// Yields the names of the objects that a watcher applies.
trait Names {
    fn applied_objects_name(self) -> futures::stream::BoxStream<'static, String>;
}

impl<S> Names for S
where
    S: futures::Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Send + 'static,
{
    fn applied_objects_name(self) -> futures::stream::BoxStream<'static, String> {
        self.try_filter_map(|event| async move {
            Ok(match event {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => object.metadata.name,
                _ => None,
            })
        })
        .map(|name| name.expect("the watch goes on"))
        .boxed()
    }
}
