use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::stat::Mode;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::runtime::fake;

/// An engine with one running container in each pod.
#[derive(Default)]
struct Engine {
    running: Mutex<BTreeSet<String>>,
    lists: AtomicUsize,
}

impl Engine {
    fn answer(&self, path: &str) -> fake::Answer {
        if path == "/containers/json" {
            self.lists.fetch_add(1, Ordering::SeqCst);
            let list: Vec<_> =
                self.running.lock().iter().map(|pod| json!({ "Id": pod, "Labels": labels(pod) })).collect();
            return fake::json(200, json!(list).to_string());
        }
        match path.strip_prefix("/containers/").and_then(|rest| rest.split_once('/')) {
            Some((id, "stop" | "kill")) if self.running.lock().remove(id) => fake::json(204, ""),
            _ => fake::json(404, r#"{"message":"no such container"}"#),
        }
    }
}

fn labels(pod: &str) -> serde_json::Value {
    json!({
        "io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": pod,
        "io.kubernetes.container.name": "main", "io.kubernetes.container.restartCount": "0",
    })
}

/// A directory with a ledger of pods whose fences have lapsed, and the watchdog that has read it.
struct Setup {
    dir: tempfile::TempDir,
    engine: Arc<Engine>,
    watch: Watch,
}

impl Setup {
    async fn new(pods: usize) -> Setup {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Arc::new(Engine::default());
        let mut ledger = Ledger { renewed: Some(Duration::ZERO), ..Ledger::default() };
        for pod in (0..pods).map(|pod| format!("pod-{pod}")) {
            ledger.add(&pod, Duration::ZERO, Duration::from_secs(1));
            marks::prepare(dir.path(), &pod).expect("prepared");
            engine.running.lock().insert(pod);
        }
        let file = dir.path().join("fences.json");
        std::fs::write(&file, serde_json::to_vec(&ledger).expect("JSON")).expect("written");
        let served = Arc::clone(&engine);
        let socket = fake::serve(&dir, move |request| served.answer(request.uri().path()));
        let client = DockerFence::at(Some(&socket), "cluster", "node").expect("a client");
        let mut watch = Watch::new(file, client);
        watch.refresh().await.expect("the disk answers").expect("a ledger");
        Setup { dir, engine, watch }
    }

    async fn all_stop(&mut self) {
        let stops = self.watch.pods.values_mut().filter_map(|pod| pod.stopping.take());
        let stops = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(stops)).await;
        stops.expect("the stops end").into_iter().for_each(|stop| stop.expect("no panic"));
        assert!(self.engine.running.lock().is_empty(), "{:?}", self.engine.running.lock());
    }
}

#[tokio::test]
async fn one_list_serves_all_overdue_pods() {
    let mut setup = Setup::new(110).await;
    assert!(setup.watch.check().await);
    assert_eq!(setup.engine.lists.load(Ordering::SeqCst), 1);
    setup.all_stop().await;
    assert!(!setup.watch.check().await, "nothing is left");
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_containers_running() {
    let mut setup = Setup::new(3).await;
    // Opening a pipe blocks while its other end is not open.
    let file = setup.dir.path().join("fences.json");
    std::fs::remove_file(&file).expect("removed");
    let mark = marks::dir(setup.dir.path(), "pod-0").join("pod-0");
    for pipe in [&file, &mark] {
        nix::unistd::mkfifo(pipe, Mode::S_IRWXU).expect("a pipe");
    }
    let check = tokio::time::timeout(Duration::from_secs(60), setup.watch.check()).await;
    assert!(check.expect("it does not wait for the disk"));
    setup.all_stop().await;
    for pipe in [&file, &mark] {
        File::options().read(true).write(true).open(pipe).expect("the blocked calls are released");
    }
}

#[tokio::test]
async fn a_watchdog_does_not_bring_back_a_directory_that_was_removed() {
    let mut setup = Setup::new(1).await;
    std::fs::remove_dir_all(setup.dir.path().join("pods")).expect("removed");
    std::fs::remove_file(setup.dir.path().join("fences.json")).expect("removed");
    assert!(setup.watch.check().await);
    setup.all_stop().await;
    let left =
        std::fs::read_dir(setup.dir.path()).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["docker.sock"]);
}

#[tokio::test]
async fn a_watchdog_goes_on_if_an_agent_has_started_since_its_last_check() {
    let mut setup = Setup::new(0).await;
    let path = owner_of(&setup.watch.file);
    let agent = create(&path).expect("a file");
    assert!(!setup.watch.check().await, "no agent holds the lock yet");
    agent.try_lock().expect("an agent starts");
    assert!(!setup.watch.own_to_end().await);
    assert!(setup.watch.check().await, "the agent lives");

    agent.unlock().expect("the agent ends");
    std::fs::write(&setup.watch.file, r#"{"boot_id":"","renewed":null,"pods":{}}"#).expect("written");
    assert!(!setup.watch.own_to_end().await, "an agent was there and has written");
    assert!(setup.watch.own_to_end().await);
    assert!(is_locked(&agent).expect("the lock can be checked"), "no agent starts before the watchdog has ended");
}
