//! The own calls of kube-rs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use harness::{Deadline, eventually_async};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, AttachParams, AttachedProcess, DeleteParams, DynamicObject, EvictParams, ListParams, LogParams, Patch,
    PatchParams, PostParams, PropagationPolicy, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt, discovery};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::demo_path::TEST_IMAGE;
use crate::writers::{Acknowledged, check_all_there};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of the kind")
}

fn config_map(name: &str, labels: &Value, data: &Value) -> ConfigMap {
    object(json!({ "metadata": { "name": name, "labels": labels }, "data": data }))
}

fn data(map: &ConfigMap) -> Value {
    json!(map.data)
}

/// Checks that the server refuses a call for this reason.
fn refused<T: Debug>(result: kube::Result<T>, reason: &str) -> kube::core::Status {
    match result {
        Err(kube::Error::Api(status)) if status.reason == reason => *status,
        other => panic!("expected {reason}, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_calls_survive_the_leader() {
    let cluster = Arc::new(super::start());
    let leader = cluster.leader_seen_by("master-1");
    let balancer = cluster.balancer(&leader);
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_for(&balancer.url())).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    let client = Client::try_from(config).expect("a client");

    discovery_finds_kinds(&client).await;
    objects_are_created_read_and_replaced(&client).await;
    lists_are_paged_and_watches_resume(&client).await;
    patches_of_each_type_apply(&client).await;
    managers_apply_with_conflicts(&client).await;
    a_deployment_scales(&client).await;
    a_pod_becomes_ready(&client).await;
    commands_run_in_a_pod(&client).await;
    ports_of_a_pod_are_forwarded(&client).await;
    logs_are_read_and_followed(&client).await;
    a_pod_is_evicted(&client).await;

    let maps = Api::default_namespaced(client);
    let seen = Seen::start(maps.clone()).await;
    let mut acknowledged = Acknowledged::new();
    for number in 0..60 {
        write(&maps, &format!("write-before-{number:03}"), &mut acknowledged).await;
    }
    let kill = tokio::task::spawn_blocking({
        let (cluster, leader) = (cluster.clone(), leader.clone());
        move || cluster.kill(&leader)
    });
    for number in 0.. {
        if kill.is_finished() {
            break;
        }
        write(&maps, &format!("write-while-{number:05}"), &mut acknowledged).await;
    }
    kill.await.expect("the leader is killed");
    for number in 0..60 {
        write(&maps, &format!("write-after-{number:03}"), &mut acknowledged).await;
    }
    seen.has_exactly(&acknowledged).await;
    for master in cluster.masters().iter().filter(|master| master.name != leader) {
        check_all_there(&cluster, &master.name, &acknowledged).await;
    }
}

async fn discovery_finds_kinds(client: &Client) {
    assert_eq!(client.apiserver_version().await.expect("a version").minor, "36");
    let found = discovery::Discovery::new(client.clone()).run_aggregated().await.expect("discovery");
    for (group, kind) in [("", "Pod"), ("apps", "Deployment"), ("networking.k8s.io", "NetworkPolicy")] {
        let group = found.get(group).expect("a group");
        assert!(group.recommended_kind(kind).is_some(), "{kind}");
    }
    let (resource, _) = discovery::pinned_kind(client, &GroupVersionKind::gvk("", "v1", "Node")).await.expect("a kind");
    let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let node = nodes.get("worker-1").await.expect("a node");
    assert_eq!(node.data["status"]["nodeInfo"]["operatingSystem"], "linux");
}

async fn objects_are_created_read_and_replaced(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let post = PostParams::default();
    let map = config_map("rs", &json!({}), &json!({ "data": "1" }));
    assert!(maps.create(&post, &map).await.expect("created").uid().is_some());
    refused(maps.create(&post, &map).await, "AlreadyExists");
    let dry = PostParams { dry_run: true, ..post.clone() };
    maps.create(&dry, &config_map("rs-dry", &json!({}), &json!({}))).await.expect("tried");
    refused(maps.get("rs-dry").await, "NotFound");
    assert!(maps.get_opt("rs-dry").await.expect("an answer").is_none());

    let mut found = maps.get("rs").await.expect("found");
    assert_eq!(data(&found), json!({ "data": "1" }));
    found.data = Some(BTreeMap::from([("data".to_owned(), "2".to_owned())]));
    let replaced = maps.replace("rs", &post, &found).await.expect("replaced");
    assert_ne!(replaced.resource_version(), found.resource_version());
    refused(maps.replace("rs", &post, &found).await, "Conflict");
    let metadata = maps.get_metadata("rs").await.expect("metadata");
    assert_eq!(metadata.metadata.uid, replaced.metadata.uid);
    let entry = maps.entry("rs").await.expect("an entry").and_modify(|map| {
        map.labels_mut().insert("by".to_owned(), "entry".to_owned());
    });
    entry.or_insert(|| unreachable!("it exists")).commit(&post).await.expect("committed");
}

async fn lists_are_paged_and_watches_resume(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let names: Vec<String> = (0..7).map(|number| format!("rs-page-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let map = config_map(name, &json!({ "rs": (number % 2).to_string() }), &json!({}));
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    let mut params = ListParams::default().labels("rs").limit(3);
    let mut listed = Vec::new();
    let version = loop {
        let page = maps.list(&params).await.expect("a page");
        listed.extend(page.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break page.metadata.resource_version.expect("a version"),
        }
    };
    assert_eq!(listed, names);
    let everywhere: Api<ConfigMap> = Api::all(client.clone());
    let chosen = everywhere.list_metadata(&ListParams::default().labels("rs in (1),rs!=0")).await.expect("a list");
    assert_eq!(chosen.items.len(), 3);
    let chosen = maps.list(&ListParams::default().fields("metadata.name=rs-page-4")).await.expect("a list");
    assert_eq!(chosen.items.len(), 1);

    maps.delete("rs-page-0", &DeleteParams::default()).await.expect("deleted");
    let rest = ListParams::default().labels("rs");
    maps.delete_collection(&DeleteParams::default(), &rest).await.expect("deleted");
    let watch = maps.watch(&WatchParams::default().labels("rs"), &version).await.expect("a watch");
    let events: Vec<_> = watch.take(7).try_collect().await.expect("events");
    let mut deleted: Vec<String> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Deleted(map) => map.name_any(),
            other => panic!("{other:?}"),
        })
        .collect();
    deleted.sort();
    assert_eq!(deleted, names);
}

fn deployment(name: &str) -> Deployment {
    let containers = ["a", "b"].map(
        |name| json!({ "name": name, "image": TEST_IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }),
    );
    let labels = json!({ "app": name });
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": containers });
    object(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": spec },
        },
    }))
}

async fn patches_of_each_type_apply(client: &Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment("rs")).await.expect("created");
    let params = PatchParams::default();
    let change = json!([{ "name": "b", "env": [{ "name": "X", "value": "1" }] }]);
    let change = json!({ "spec": { "template": { "spec": { "containers": change } } } });
    let changed = deployments.patch("rs", &params, &Patch::Strategic(change)).await.expect("patched");
    let template = changed.spec.and_then(|spec| spec.template.spec).expect("a template");
    let shown: Vec<_> = template.containers.iter().map(|c| (c.name.as_str(), c.env.is_some())).collect();
    assert_eq!(shown, [("a", false), ("b", true)]);

    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let operations = |expected: &str| {
        Patch::<Value>::Json(object(json!([
            { "op": "test", "path": "/data/data", "value": expected },
            { "op": "add", "path": "/metadata/labels", "value": { "patched": "json" } },
        ])))
    };
    let patched = maps.patch("rs", &params, &operations("2")).await.expect("patched");
    assert_eq!(json!(patched.metadata.labels), json!({ "patched": "json" }));
    refused(maps.patch("rs", &params, &operations("9")).await, "Invalid");
    let merge = Patch::Merge(json!({ "data": { "data": null, "more": "3" } }));
    assert_eq!(data(&maps.patch("rs", &params, &merge).await.expect("patched")), json!({ "more": "3" }));
}

async fn managers_apply_with_conflicts(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let apply = async |params: PatchParams, values: Value| {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "rs-applied" }, "data": values,
        });
        maps.patch("rs-applied", &params, &Patch::Apply(body)).await
    };
    let both = json!({ "a": "1", "b": "1" });
    assert_eq!(data(&apply(PatchParams::apply("one"), both.clone()).await.expect("applied")), both);
    let conflict = refused(apply(PatchParams::apply("two"), json!({ "a": "2" })).await, "Conflict");
    assert!(conflict.message.contains(".data.a"), "{conflict:?}");
    let forced = apply(PatchParams::apply("two").force(), json!({ "a": "2" })).await.expect("applied");
    assert_eq!(data(&forced), json!({ "a": "2", "b": "1" }));
    let changed = apply(PatchParams::apply("one"), json!({ "c": "1" })).await.expect("applied");
    assert_eq!(data(&changed), json!({ "a": "2", "c": "1" }));
}

async fn a_deployment_scales(client: &Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut scale = deployments.get_scale("rs").await.expect("a scale");
    scale.spec.as_mut().expect("a spec").replicas = Some(1);
    deployments.replace_scale("rs", &PostParams::default(), &scale).await.expect("scaled");
    let merge = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let scaled = deployments.patch_scale("rs", &PatchParams::default(), &merge).await.expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(2));
    let ready = |found: Option<&Deployment>| {
        found.and_then(|found| found.status.as_ref()).is_some_and(|status| status.ready_replicas == Some(2))
    };
    fulfilled(&deployments, "rs", ready).await;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    deployments.delete("rs", &foreground).await.expect("deleted");
    fulfilled(&deployments, "rs", |found: Option<&Deployment>| found.is_none()).await;
}

/// Waits with the library's own watcher.
async fn fulfilled<K>(api: &Api<K>, name: &str, condition: impl Condition<K>)
where
    K: kube::Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let waiting = await_condition(api.clone(), name, condition);
    tokio::time::timeout(Deadline::default().0, waiting).await.expect("in time").expect("a watch");
}

async fn a_pod_becomes_ready(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let script = "mkdir /w; echo hello >/w/index.html; httpd -p 127.0.0.1:8080 -h /w; \
                  for i in 1 2 3; do echo line $i; done; while read x; do echo got $x; done; exec sleep 3600";
    let container = json!({
        "name": "main", "image": TEST_IMAGE, "imagePullPolicy": "Never", "stdin": true, "command": ["sh", "-c", script],
    });
    let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [container] });
    let pod: Pod = object(json!({ "metadata": { "name": "rs" }, "spec": spec }));
    pods.create(&PostParams::default(), &pod).await.expect("created");
    fulfilled(&pods, "rs", conditions::is_pod_running()).await;
    let status = pods.get_status("rs").await.expect("a pod").status.expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

/// Returns the outputs and the reason of the status.
async fn finish(mut process: AttachedProcess) -> (String, String, Option<String>) {
    let status = process.take_status().expect("a status");
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().expect("an output"), process.stderr().expect("an output"));
    let read = async { tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    tokio::time::timeout(Deadline::default().0, read).await.expect("in time").expect("read");
    let status = status.await.expect("a status");
    process.join().await.expect("the connection ends");
    let cause = status.details.and_then(|details| details.causes?.into_iter().next());
    (out, err, cause.map(|cause| format!("{} {}", cause.reason.unwrap_or_default(), cause.message.unwrap_or_default())))
}

async fn commands_run_in_a_pod(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let outputs = AttachParams::default();
    let command = ["sh", "-c", "echo out; echo err >&2; exit 7"];
    let failed = finish(pods.exec("rs", command, &outputs).await.expect("exec")).await;
    assert_eq!(failed, ("out\n".to_owned(), "err\n".to_owned(), Some("ExitCode 7".to_owned())));
    let mut counted = pods.exec("rs", ["wc", "-c"], &AttachParams::default().stdin(true)).await.expect("exec");
    let mut input = counted.stdin().expect("an input");
    input.write_all(&vec![b'x'; 1_000_000]).await.expect("written");
    input.shutdown().await.expect("closed");
    drop(input);
    let (out, _, cause) = finish(counted).await;
    assert_eq!((out.trim(), cause), ("1000000", None));
    let (lines, _, _) = finish(pods.exec("rs", ["seq", "1", "100000"], &outputs).await.expect("exec")).await;
    assert_eq!((lines.lines().count(), lines.lines().last()), (100_000, Some("100000")));

    let mut attached = pods.attach("rs", &AttachParams::default().stdin(true).stderr(false)).await.expect("attached");
    attached.stdin().expect("an input").write_all(b"word\n").await.expect("written");
    let mut output = attached.stdout().expect("an output");
    let (mut text, mut buffer) = (String::new(), [0_u8; 1024]);
    while !text.contains("got word\n") {
        let read = tokio::time::timeout(Deadline::default().0, output.read(&mut buffer));
        let count = read.await.expect("in time").expect("read");
        assert!(count > 0, "the attachment ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    attached.abort();
}

async fn ports_of_a_pod_are_forwarded(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for _ in 0..2 {
        let mut forwarder = pods.portforward("rs", &[8080]).await.expect("forwarded");
        let mut stream = forwarder.take_stream(8080).expect("a stream");
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        let read = tokio::time::timeout(Deadline::default().0, stream.read_to_string(&mut answer));
        read.await.expect("in time").expect("read");
        assert!(answer.ends_with("hello\n"), "{answer}");
        drop(stream);
        // The pod has ended the connection. `join` would report a message that kube-rs sends after that.
        forwarder.abort();
    }
}

async fn logs_are_read_and_followed(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let all = pods.logs("rs", &LogParams::default()).await.expect("a log");
    assert_eq!(all, "line 1\nline 2\nline 3\ngot word\n");
    let last = pods.logs("rs", &LogParams { tail_lines: Some(1), ..LogParams::default() }).await.expect("a log");
    assert_eq!(last, "got word\n");
    let follow = LogParams { follow: true, tail_lines: Some(2), ..LogParams::default() };
    let mut lines = pods.log_stream("rs", &follow).await.expect("a log").lines();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line| line != "late") {
        let next = tokio::time::timeout(Deadline::default().0, lines.try_next());
        seen.push(next.await.expect("in time").expect("a log").expect("a line"));
        if seen.len() == 2 {
            let late = ["sh", "-c", "echo late >/proc/1/fd/1"];
            finish(pods.exec("rs", late, &AttachParams::default()).await.expect("exec")).await;
        }
    }
    assert_eq!(seen, ["line 3", "got word", "late"]);
}

async fn a_pod_is_evicted(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.evict("rs", &EvictParams::default()).await.expect("evicted");
    fulfilled(&pods, "rs", |found: Option<&Pod>| found.is_none()).await;
}

/// Creates a ConfigMap and changes it once, and tries again as long as no master answers.
async fn write(maps: &Api<ConfigMap>, name: &str, acknowledged: &mut Acknowledged) {
    let map = config_map(name, &json!({ "test": "death" }), &json!({ "round": "0" }));
    let mut attempts = 0;
    let created = repeated(name, async || {
        attempts += 1;
        match maps.create(&PostParams::default(), &map).await {
            // An earlier attempt, whose answer was lost, has created it.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" && attempts > 1 => maps.get(name).await,
            other => other,
        }
    });
    let uid = created.await.uid().expect("a uid");
    let patch = Patch::Merge(json!({ "data": { "round": "1" } }));
    repeated(name, async || maps.patch(name, &PatchParams::default(), &patch).await).await;
    acknowledged.insert(name.to_owned(), uid);
}

async fn repeated<T>(name: &str, mut call: impl AsyncFnMut() -> kube::Result<T>) -> T {
    let started = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                panic!("{name} was refused: {status:?}");
            }
            Err(error) => assert!(started.elapsed() < Deadline::default().0, "{name}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Events of the library's watcher, as `uid round` by name.
struct Seen {
    events: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Seen {
    /// Starts the watcher, and waits until its first list is complete.
    async fn start(maps: Api<ConfigMap>) -> Seen {
        let events = Arc::<Mutex<BTreeMap<String, Vec<String>>>>::default();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let mut begun = Some(begun);
        let sink = events.clone();
        let task = tokio::spawn(async move {
            let stream = watcher(maps, watcher::Config::default().labels("test=death")).default_backoff();
            let mut stream = std::pin::pin!(stream);
            // An error is reported once, and the watcher tries again.
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::InitDone) => {
                        begun.take().expect("a resumed watch does not list again").send(()).expect("the test waits");
                    }
                    Ok(watcher::Event::Apply(map)) => {
                        let round = map.data.as_ref().and_then(|data| data.get("round")).cloned().unwrap_or_default();
                        let event = format!("{} {round}", map.uid().unwrap_or_default());
                        let mut events = sink.lock().unwrap_or_else(PoisonError::into_inner);
                        events.entry(map.name_any()).or_default().push(event);
                    }
                    _ => {}
                }
            }
        });
        begins.await.expect("a first list");
        Seen { events, task }
    }

    /// Waits until the watcher has seen the creation and the change of each object, each once.
    async fn has_exactly(&self, acknowledged: &Acknowledged) {
        let expected: BTreeMap<String, Vec<String>> = acknowledged
            .iter()
            .map(|(name, uid)| (name.clone(), vec![format!("{uid} 0"), format!("{uid} 1")]))
            .collect();
        eventually_async("the watcher's events", || async {
            assert!(!self.task.is_finished(), "the watcher has ended");
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let differs = |name: &&String| events.get(*name) != expected.get(*name);
            let different: Vec<_> = expected.keys().chain(events.keys()).filter(differs).collect();
            if different.is_empty() { Ok(()) } else { Err(format!("{different:?} differ")) }
        })
        .await;
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.task.abort();
    }
}
