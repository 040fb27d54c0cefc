//! Keeps the table of this node's containers up to date by lists, events and inspections. A container that cannot be
//! inspected holds up its own pod alone, until it can be.

use std::collections::HashSet;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::sync::CancellationToken;

use super::table::{Container, Seen};
use super::{Answered, DEADLINE, DockerRuntime, failed, is_gone, labels, logs, look, within, within_limit};
use crate::plan::{ContainerRecord, Role, RunState};
use crate::runtime::{LogOptions, Runtime, RuntimeError};

/// Interval between two relists, in case an event was lost.
const RELIST_INTERVAL: Duration = Duration::from_secs(30);
/// Delay before containers that could not be inspected are inspected again.
const INSPECT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Delay before a broken stream of events is requested again.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
/// Maximum time of an inspection. It is short because Docker may hang on one container and answer for the others.
const INSPECTION_DEADLINE: Duration = Duration::from_secs(15);
/// The kubelet's maximum size of a termination message, in bytes.
const MESSAGE_BYTES: u64 = 4096;
/// The kubelet's maximum number of lines of a termination message from the log.
const MESSAGE_LOG_LINES: u64 = 80;
/// The kubelet's maximum size of a termination message from the log, in bytes.
const MESSAGE_LOG_BYTES: usize = 2048;

/// A task beside the stream of events that has ended.
enum Done {
    Looked,
    LookedAgain,
    Listed(Result<(), RuntimeError>),
}

impl DockerRuntime {
    /// Follows Docker's events until `shutdown`.
    pub(super) async fn follow(&self, shutdown: CancellationToken) {
        loop {
            let followed = async {
                let broken = self.follow_events().await;
                // The engine may have been restarted with other settings, or replaced.
                let mut answered = self.capabilities.lock();
                *answered = Answered { engine: answered.engine + 1, capabilities: None };
                drop(answered);
                broken
            };
            let broken = tokio::select! {
                () = shutdown.cancelled() => return,
                broken = followed => broken,
            };
            match broken {
                Ok(()) => tracing::warn!("Docker closed the stream of events"),
                Err(error) => tracing::warn!(error = %error, "cannot follow Docker's events"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECONNECT_AFTER) => {}
            }
        }
    }

    /// Follows Docker's events until the stream ends or fails.
    async fn follow_events(&self) -> Result<(), RuntimeError> {
        let mut filters = self.owner.filters();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), ["start", "die", "oom", "destroy"].map(str::to_owned).to_vec());
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let mut events = std::pin::pin!(self.docker.events(Some(options)));
        // The stream is requested before the list, so that no change between the two is lost.
        let mut relist = tokio::time::interval(RELIST_INTERVAL);
        let mut look_again = tokio::time::interval(INSPECT_AGAIN_AFTER);
        // Events do not wait for these tasks, since an inspection may hang.
        let mut tasks: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        let (mut is_listing, mut is_looking_again) = (false, false);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => if let Some(container) = self.handle_event(event) {
                        tasks.push(async move { self.look(container).await; Done::Looked }.boxed());
                    },
                    Some(Err(error)) => return Err(failed("follow events", error)),
                    None => return Ok(()),
                },
                _ = relist.tick(), if !is_listing => {
                    is_listing = true;
                    tasks.push(async { Done::Listed(self.list().await) }.boxed());
                }
                _ = look_again.tick(), if !is_looking_again => {
                    is_looking_again = true;
                    tasks.push(async { self.look_at_all(self.table.unknown()).await; Done::LookedAgain }.boxed());
                }
                Some(done) = tasks.next() => match done {
                    Done::Looked => {}
                    Done::LookedAgain => is_looking_again = false,
                    Done::Listed(listed) => {
                        is_listing = false;
                        listed?;
                    }
                },
            }
        }
    }

    /// Takes what an event tells, and returns the container to inspect, if there is one.
    fn handle_event(&self, event: EventMessage) -> Option<Container> {
        let actor = event.actor?;
        let (id, attributes) = (actor.id?, actor.attributes?);
        let identity = labels::identify(&attributes)?;
        match event.action.as_deref() {
            Some("destroy") => self.table.remove(&identity.pod.uid, &id),
            Some("oom") => self.table.ran_out_of_memory(&identity.pod.uid, &id),
            _ => return Some(container(identity, id)),
        }
        None
    }

    /// Lists all containers of this node, and inspects each. Containers whose state is unknown are left to the retries.
    pub(super) async fn list(&self) -> Result<(), RuntimeError> {
        self.connection.negotiate().await?;
        let before = self.table.ids();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&self.owner.filters()).build();
        let list = within("list containers", self.docker.list_containers(Some(options))).await?;
        let found = list.into_iter().filter_map(|summary| {
            let identity = labels::identify(&summary.labels.unwrap_or_default())?;
            Some(container(identity, summary.id?))
        });
        let mut found: Vec<Container> = found.collect();
        let ids: HashSet<String> = found.iter().map(|container| container.id.clone()).collect();
        found.retain(|container| !self.table.is_unknown(container));
        self.look_at_all(found).await;
        self.table.retain(&ids, &before);
        Ok(())
    }

    async fn look_at_all(&self, containers: Vec<Container>) {
        futures::future::join_all(containers.into_iter().map(|container| self.look(container))).await;
    }

    /// Inspects one container when its turn comes.
    async fn look(&self, container: Container) {
        let permits = if self.table.is_unknown(&container) { &self.retries } else { &self.inspections };
        let Ok(_permit) = permits.acquire().await else { return };
        self.inspect_or_lose(&container).await;
    }

    /// Inspects one container. After a failure the state of the container is unknown.
    pub(super) async fn inspect_or_lose(&self, container: &Container) {
        let Container { pod, id, role } = container;
        if let Err(error) = self.inspect(&pod.uid, id).await
            && self.table.lose(pod, id, *role)
        {
            tracing::warn!(%pod, %id, error = %error, "cannot inspect a container; its pod waits until that succeeds");
        }
    }

    /// Inspects one container and notifies its pod's worker.
    pub(super) async fn inspect(&self, uid: &str, id: &str) -> Result<(), RuntimeError> {
        let inspection = self.docker.inspect_container(id, None::<InspectContainerOptions>);
        let answer = match within_limit("inspect the container", INSPECTION_DEADLINE, inspection).await {
            Err(error) if is_gone(&error) => {
                self.table.remove(uid, id);
                return Ok(());
            }
            answer => answer?,
        };
        let Some((identity, mut seen)) = look::interpret(&answer) else { return Ok(()) };
        if let (Seen::Container(record), Some(container)) = (&mut seen, &identity.container) {
            match self.table.ended(&identity.pod.uid, id) {
                Some(known) => *record = known,
                None => self.add_message(record, container).await,
            }
        }
        tracing::trace!(pod = %identity.pod, id = seen.id(), "inspected a container");
        self.table.update(&identity.pod, seen);
        Ok(())
    }

    /// Reads the termination message of a container that has ended.
    async fn add_message(&self, record: &mut ContainerRecord, container: &labels::ContainerIdentity) {
        let id = record.id.clone();
        let RunState::Exited(exit) = &mut record.state else { return };
        if let Some(file) = &container.message_file {
            // A disk that hangs must not hold the permit of this inspection.
            let read = tokio::time::timeout(INSPECTION_DEADLINE, message(file)).await;
            match read.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok(content) if content.is_empty() => {}
                Ok(content) => exit.message = String::from_utf8_lossy(&content).into_owned(),
                Err(error) => tracing::debug!(%file, error = %error, "cannot read the termination message"),
            }
        }
        if exit.message.is_empty() && exit.code != 0 && container.message_from_logs {
            match self.log_tail(&id).await {
                Ok(tail) => exit.message = tail,
                Err(error) => tracing::debug!(%id, error = %error, "cannot read the log for a termination message"),
            }
        }
    }

    async fn log_tail(&self, id: &str) -> Result<String, RuntimeError> {
        let options = LogOptions { tail_lines: Some(MESSAGE_LOG_LINES), ..LogOptions::default() };
        let tail = logs::last_bytes(self.logs(id, options).await?, MESSAGE_LOG_BYTES);
        let doing = "read the log";
        let tail = tokio::time::timeout(DEADLINE, tail).await;
        let tail = tail.map_err(|_| RuntimeError::TimedOut { doing, seconds: DEADLINE.as_secs() })??;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }
}

fn container(identity: labels::Identity, id: String) -> Container {
    let role = if identity.container.is_some() { Role::Container } else { Role::Sandbox };
    Container { pod: identity.pod, id, role }
}

/// Reads the end of a termination message, whose file may be of any size.
async fn message(file: &str) -> std::io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::open(file).await?;
    let length = file.metadata().await?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(MESSAGE_BYTES))).await?;
    let mut content = Vec::new();
    file.take(MESSAGE_BYTES).read_to_end(&mut content).await?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use http_body_util::{BodyExt, StreamBody};
    use hyper::Response;
    use hyper::body::{Bytes, Frame};
    use serde_json::{Value, json};
    use tokio::sync::{mpsc, watch};
    use tokio_stream::wrappers::ReceiverStream;

    use super::super::CONCURRENT_INSPECTIONS;
    use super::super::fake::{self, Answer};
    use super::super::labels::Owner;
    use super::*;
    use crate::plan::{Observed, PodRef};

    /// An engine with a running container in each of the pods `good` and `bad`.
    struct Engine {
        is_broken: AtomicBool,
        has_seccomp: AtomicBool,
        /// Number of requests for the engine's settings.
        asked: AtomicUsize,
        /// Number of pods whose container hangs in every inspection.
        hanging: AtomicUsize,
        /// Each change ends the streams of events.
        restarts: watch::Sender<()>,
    }

    impl Engine {
        fn new() -> Arc<Self> {
            Arc::new(Engine {
                is_broken: true.into(),
                has_seccomp: true.into(),
                asked: AtomicUsize::new(0),
                hanging: AtomicUsize::new(0),
                restarts: watch::Sender::new(()),
            })
        }

        fn answer(&self, path: &str) -> Answer {
            let path = path.strip_prefix("/v1.41").unwrap_or(path);
            let json = |status, body: Value| fake::json(status, body.to_string());
            match path {
                "/version" => json(200, json!({ "Version": "1", "ApiVersion": "1.41", "MinAPIVersion": "1.12" })),
                "/info" => {
                    self.asked.fetch_add(1, Ordering::SeqCst);
                    let options: &[&str] =
                        if self.has_seccomp.load(Ordering::SeqCst) { &["name=seccomp"] } else { &[] };
                    json(200, json!({ "SecurityOptions": options }))
                }
                "/containers/json" => {
                    let hanging = (0..self.hanging.load(Ordering::SeqCst)).map(|pod| format!("hangs-{pod}"));
                    let pods = ["good", "bad"].map(str::to_owned).into_iter().chain(hanging);
                    let list: Vec<_> = pods.map(|pod| json!({ "Id": pod, "Labels": labels_of(&pod) })).collect();
                    json(200, json!(list))
                }
                "/containers/bad/json" if self.is_broken.load(Ordering::SeqCst) => {
                    json(500, json!({ "message": "the layer is corrupt" }))
                }
                "/containers/good/json" | "/containers/bad/json" => {
                    let pod = path.split('/').nth(2).unwrap_or_default();
                    let state = json!({ "Status": "running", "Running": true, "StartedAt": "2026-01-01T00:00:00Z" });
                    json(200, json!({ "Id": pod, "Config": { "Labels": labels_of(pod) }, "State": state }))
                }
                path if path.starts_with("/containers/hangs") && path.ends_with("/json") => self.stream(),
                path if path.ends_with("/stop") => fake::json(204, ""),
                "/events" => self.stream(),
                _ => json(404, json!({ "message": "page not found" })),
            }
        }

        /// Returns an answer that does not end before the engine restarts.
        fn stream(&self) -> Answer {
            let mut restarts = self.restarts.subscribe();
            let (sender, events) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
            tokio::spawn(async move {
                // An error means that the test has ended.
                restarts.changed().await.ok();
                drop(sender);
            });
            Response::new(BodyExt::boxed(StreamBody::new(ReceiverStream::new(events))))
        }
    }

    fn labels_of(pod: &str) -> Value {
        json!({
            "io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": pod,
            "io.kubernetes.container.name": "main", "io.kubernetes.container.restartCount": "0",
        })
    }

    fn runtime(dir: &tempfile::TempDir, engine: &Arc<Engine>) -> Arc<DockerRuntime> {
        let engine = Arc::clone(engine);
        let socket = fake::serve(dir, move |request| engine.answer(request.uri().path()));
        let owner = Owner { cluster: "test".to_owned(), node: "node-a".to_owned() };
        Arc::new(DockerRuntime::of(owner, "bridge", Some(&socket)).expect("a runtime"))
    }

    async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
        let wait = async {
            while !check().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect(what);
    }

    #[tokio::test]
    async fn a_container_that_cannot_be_inspected_holds_up_its_own_pod_alone() {
        let (dir, engine) = (tempfile::tempdir().expect("a directory"), Engine::new());
        let runtime = runtime(&dir, &engine);
        runtime.list().await.expect("the list succeeds without it");
        let observed = |pod: &str| Observed::clone(&runtime.subscribe(pod).borrow());
        assert_eq!(observed("good").running().count(), 1);
        assert_eq!((observed("bad").containers.len(), observed("bad").unknown.len()), (0, 1));
        let known = runtime.known_pods();
        assert_eq!(known.len(), 2, "the pod is known although its container is not");
        let bad = known.iter().find(|known| known.pod.uid == "bad");
        assert!(bad.is_some_and(|bad| bad.may_run), "an agent without masters manages it");

        let shutdown = CancellationToken::new();
        let following = tokio::spawn({
            let (runtime, shutdown) = (Arc::clone(&runtime), shutdown.clone());
            async move { runtime.follow(shutdown).await }
        });
        engine.is_broken.store(false, Ordering::SeqCst);
        eventually("the container is inspected again", async || {
            observed("bad").running().count() == 1 && observed("bad").unknown.is_empty()
        })
        .await;
        shutdown.cancel();
        following.await.expect("it ends");
    }

    #[tokio::test]
    async fn containers_that_hang_hold_up_no_other_pod() {
        let (dir, engine) = (tempfile::tempdir().expect("a directory"), Engine::new());
        let runtime = runtime(&dir, &engine);
        engine.hanging.store(3 * CONCURRENT_INSPECTIONS, Ordering::SeqCst);
        // Earlier inspections have run into their deadline.
        for pod in (0..3 * CONCURRENT_INSPECTIONS).map(|pod| format!("hangs-{pod}")) {
            let hanging = PodRef { namespace: "default".into(), name: pod.clone(), uid: pod.clone() };
            assert!(runtime.table.lose(&hanging, &pod, Role::Container));
        }
        let retries = tokio::spawn({
            let runtime = Arc::clone(&runtime);
            async move { runtime.look_at_all(runtime.table.unknown()).await }
        });
        eventually("the retries begin", async || runtime.retries.available_permits() == 0).await;
        let listed = tokio::time::timeout(INSPECTION_DEADLINE / 2, runtime.list()).await;
        listed.expect("the list does not wait for them").expect("a list");
        assert_eq!(runtime.subscribe("good").borrow().running().count(), 1);
        retries.abort();
    }

    #[tokio::test]
    async fn a_stop_succeeds_although_its_container_cannot_be_inspected() {
        let (dir, engine) = (tempfile::tempdir().expect("a directory"), Engine::new());
        let runtime = runtime(&dir, &engine);
        let pod = PodRef { namespace: "default".into(), name: "bad".into(), uid: "bad".into() };
        runtime.stop_container(&pod, "bad", Duration::from_secs(1)).await.expect("the engine has stopped it");
        assert_eq!(runtime.subscribe("bad").borrow().unknown.len(), 1);
    }

    #[tokio::test]
    async fn a_request_for_capabilities_that_hangs_does_not_hold_up_the_events() {
        let (dir, engine) = (tempfile::tempdir().expect("a directory"), Engine::new());
        let runtime = runtime(&dir, &engine);
        let _asking = runtime.asking.lock().await;
        let shutdown = CancellationToken::new();
        let following = tokio::spawn({
            let (runtime, shutdown) = (Arc::clone(&runtime), shutdown.clone());
            async move { runtime.follow(shutdown).await }
        });
        eventually("the events are followed", async || engine.restarts.receiver_count() > 0).await;
        engine.restarts.send_replace(());
        eventually("they are followed again", async || runtime.capabilities.lock().engine > 0).await;
        eventually("they are followed again", async || engine.restarts.receiver_count() > 0).await;
        shutdown.cancel();
        following.await.expect("it ends");
    }

    #[tokio::test]
    async fn capabilities_are_asked_for_again_after_the_engine_was_restarted() {
        let (dir, engine) = (tempfile::tempdir().expect("a directory"), Engine::new());
        let runtime = runtime(&dir, &engine);
        let has_seccomp = async || runtime.capabilities().await.expect("an answer").expect("an engine").seccomp;
        let shutdown = CancellationToken::new();
        let following = tokio::spawn({
            let (runtime, shutdown) = (Arc::clone(&runtime), shutdown.clone());
            async move { runtime.follow(shutdown).await }
        });
        eventually("the events are followed", async || engine.restarts.receiver_count() > 0).await;
        assert!(has_seccomp().await && has_seccomp().await);
        assert_eq!(engine.asked.load(Ordering::SeqCst), 1, "the same engine is asked once");
        engine.has_seccomp.store(false, Ordering::SeqCst);
        engine.restarts.send_replace(());
        eventually("the new setting is seen", async || !has_seccomp().await).await;
        shutdown.cancel();
        following.await.expect("it ends");
    }

    #[test]
    fn an_inspection_that_ends_after_the_removal_brings_nothing_back() {
        let table = super::super::table::Table::default();
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: "u1".into() };
        let lose = || table.lose(&pod, "late", Role::Container);
        assert!(lose() && !lose(), "only the first failure is news");
        table.remove("u1", "late");
        assert!(!lose());
        assert!(table.observed("u1").is_empty());
    }
}
