//! The hollow runtime, which starts nothing and reports healthy containers.

mod machine;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::machine::StateDir;
use super::{
    Capabilities, ContainerSpec, ExecResult, ImageError, KnownPod, Limits, LogOptions, LogStream, Runtime,
    RuntimeError, RuntimeInfo, SandboxSpec, Session, Streams,
};
use crate::plan::{ContainerRecord, Exit, Observed, PodRef, RunState, Sandbox, SandboxState};

/// Interval between two searches for kill requests.
const KILL_INTERVAL: Duration = Duration::from_millis(100);
/// Number of addresses that one node invents.
const ADDRESSES: u32 = 254;

#[derive(Default)]
struct HollowPod {
    pod: Option<PodRef>,
    state: watch::Sender<Arc<Observed>>,
    /// Ids of containers that end successfully as soon as they are started.
    short_lived: HashSet<String>,
}

/// A runtime whose pods exist only in this process, or in a directory that the next agent reads.
pub struct HollowRuntime {
    pods: Mutex<HashMap<String, HollowPod>>,
    machine: Option<StateDir>,
    /// The second and third octet of the pods' invented addresses.
    range: (u8, u8),
    next_address: AtomicU32,
}

impl HollowRuntime {
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        node_name.hash(&mut hasher);
        let [low, high, ..] = hasher.finish().to_le_bytes();
        HollowRuntime {
            pods: Mutex::new(HashMap::new()),
            machine: None,
            range: (128 + high % 128, low),
            next_address: AtomicU32::new(1),
        }
    }

    /// Creates a runtime that keeps its containers in `dir`, and restores those that an earlier agent has left there.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn kept(node_name: &str, dir: &Path) -> Result<Self, RuntimeError> {
        let host = |source| RuntimeError::Host { path: dir.to_owned(), source };
        let machine = StateDir::open(dir).map_err(host)?;
        let kept = machine.load().map_err(host)?.into_iter().map(|kept| {
            let state = watch::Sender::new(Arc::new(kept.observed));
            let short_lived = kept.short_lived.into_iter().collect();
            (kept.pod.uid.clone(), HollowPod { pod: Some(kept.pod), state, short_lived })
        });
        let pods = Mutex::new(kept.collect());
        Ok(HollowRuntime { pods, machine: Some(machine), ..HollowRuntime::new(node_name) })
    }

    /// Changes a pod. A kept pod is written to disk before the change is shown.
    async fn change(&self, pod: &PodRef, change: impl FnOnce(&mut Observed)) -> Result<(), RuntimeError> {
        let Some(machine) = &self.machine else {
            let mut pods = self.pods.lock();
            let entry = pods.entry(pod.uid.clone()).or_default();
            entry.pod = Some(pod.clone());
            entry.state.send_modify(|observed| change(Arc::make_mut(observed)));
            return Ok(());
        };
        let _order = machine.order.lock().await;
        let (mut observed, short_lived) = {
            let mut pods = self.pods.lock();
            let entry = pods.entry(pod.uid.clone()).or_default();
            let observed = Observed::clone(&entry.state.borrow());
            (observed, entry.short_lived.iter().cloned().collect::<Vec<_>>())
        };
        change(&mut observed);
        let kept = machine.keep(pod, &observed, &short_lived).await;
        kept.map_err(|source| RuntimeError::Host { path: format!("the state of pod {pod}").into(), source })?;
        let mut pods = self.pods.lock();
        let entry = pods.entry(pod.uid.clone()).or_default();
        entry.pod = Some(pod.clone());
        entry.state.send_replace(Arc::new(observed));
        Ok(())
    }

    /// Ends the containers with a kill request.
    async fn kill(&self, machine: &StateDir) -> std::io::Result<()> {
        for id in machine.kills().await? {
            let is_it = |record: &ContainerRecord| record.id == id && record.is_running();
            let holder = {
                let pods = self.pods.lock();
                let mut entries = pods.values();
                let found = entries.find(|entry| entry.state.borrow().containers.iter().any(is_it));
                found.and_then(|entry| entry.pod.clone())
            };
            if let Some(pod) = holder {
                let kill = |observed: &mut Observed| {
                    for record in observed.containers.iter_mut().filter(|record| is_it(record)) {
                        record.state = machine::killed(record);
                    }
                };
                self.change(&pod, kill).await.map_err(std::io::Error::other)?;
            }
            machine.killed(&id).await?;
        }
        Ok(())
    }

    fn address(&self) -> String {
        let next = || {
            let host = self.next_address.fetch_add(1, Ordering::Relaxed) % ADDRESSES + 1;
            format!("10.{}.{}.{host}", self.range.0, self.range.1)
        };
        // Addresses of restored pods are skipped. When all are taken, two pods share one, because there is no network.
        let pods = self.pods.lock();
        let is_free = |address: &String| {
            let mut sandboxes = pods.values().map(|entry| entry.state.borrow());
            !sandboxes.any(|observed| observed.sandboxes.iter().any(|sandbox| sandbox.ips.contains(address)))
        };
        let tries = if self.machine.is_some() { ADDRESSES } else { 1 };
        let mut address = next();
        for _ in 1..tries {
            if is_free(&address) {
                break;
            }
            address = next();
        }
        address
    }
}

fn identifier(parts: &[&str]) -> String {
    let mut id = String::with_capacity(64);
    for round in 0..4_u8 {
        let mut hasher = DefaultHasher::new();
        (round, parts).hash(&mut hasher);
        id.push_str(&format!("{:016x}", hasher.finish()));
    }
    id
}

fn ended(record: &ContainerRecord) -> RunState {
    RunState::Exited(Exit {
        started_at: record.started_at(),
        finished_at: Timestamp::now(),
        code: 0,
        reason: "Completed".to_owned(),
        message: String::new(),
    })
}

#[async_trait]
impl Runtime for HollowRuntime {
    fn scheme(&self) -> &'static str {
        "hollow"
    }

    fn is_hollow(&self) -> bool {
        true
    }

    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo { version: format!("hollow://{}", env!("CARGO_PKG_VERSION")) })
    }

    async fn capabilities(&self) -> Result<Option<Capabilities>, RuntimeError> {
        Ok(None)
    }

    async fn relist(&self) -> Result<(), RuntimeError> {
        match &self.machine {
            Some(machine) => {
                self.kill(machine).await.map_err(|error| RuntimeError::Config { message: error.to_string() })
            }
            None => Ok(()),
        }
    }

    async fn observe(self: Arc<Self>, shutdown: CancellationToken) {
        let Some(machine) = &self.machine else {
            shutdown.cancelled().await;
            return;
        };
        while shutdown.run_until_cancelled(tokio::time::sleep(KILL_INTERVAL)).await.is_some() {
            if let Err(error) = self.kill(machine).await {
                tracing::warn!(error = %error, "cannot read the kill requests");
            }
        }
    }

    fn known_pods(&self) -> Vec<KnownPod> {
        let pods = self.pods.lock();
        let known = pods.values().filter_map(|entry| {
            let pod = entry.pod.clone()?;
            Some(KnownPod { pod, may_run: entry.state.borrow().sandbox().is_some() })
        });
        known.collect()
    }

    fn subscribe(&self, uid: &str) -> watch::Receiver<Arc<Observed>> {
        self.pods.lock().entry(uid.to_owned()).or_default().state.subscribe()
    }

    fn forget(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    async fn has_image(&self, _: &str) -> Result<bool, ImageError> {
        Ok(true)
    }

    async fn pull_image(&self, _: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let sandbox = Sandbox {
            id: identifier(&[&spec.pod.uid, "sandbox", &spec.attempt.to_string()]),
            attempt: spec.attempt,
            state: SandboxState::Created,
            ips: if spec.host_network { Vec::new() } else { vec![self.address()] },
            created_at: Timestamp::now(),
        };
        self.change(&spec.pod, |observed| observed.sandboxes.push(sandbox)).await
    }

    async fn start_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        self.change(pod, |observed| {
            for sandbox in observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                sandbox.state = SandboxState::Running;
            }
        })
        .await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let record = ContainerRecord {
            id: identifier(&[&spec.pod.uid, &spec.name, &spec.attempt.to_string()]),
            name: spec.name.clone(),
            attempt: spec.attempt,
            sandbox_id: spec.sandbox_id.clone(),
            image: spec.image.clone(),
            image_id: format!("hollow://{}", spec.image),
            state: RunState::Created,
        };
        if spec.runs_to_completion
            && let Some(entry) = self.pods.lock().get_mut(&spec.pod.uid)
        {
            entry.short_lived.insert(record.id.clone());
        }
        self.change(&spec.pod, |observed| observed.containers.push(record)).await
    }

    async fn start_container(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        let ends = self.pods.lock().get_mut(&pod.uid).is_some_and(|entry| entry.short_lived.remove(id));
        self.change(pod, |observed| {
            for record in observed.containers.iter_mut().filter(|record| record.id == id) {
                record.state = RunState::Running { started_at: Timestamp::now() };
                if ends {
                    record.state = ended(record);
                }
            }
        })
        .await
    }

    async fn update_container(&self, _: &str, _: &Limits) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn stop_container(&self, pod: &PodRef, id: &str, _: Duration) -> Result<(), RuntimeError> {
        self.change(pod, |observed| {
            for record in observed.containers.iter_mut().filter(|record| record.id == id && record.is_running()) {
                record.state = ended(record);
            }
        })
        .await
    }

    async fn remove(&self, pod: &PodRef, ids: &[String]) -> Result<(), RuntimeError> {
        self.change(pod, |observed| {
            observed.containers.retain(|record| !ids.contains(&record.id));
            observed.sandboxes.retain(|sandbox| !ids.contains(&sandbox.id));
        })
        .await
    }

    async fn stop_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        self.change(pod, |observed| {
            for sandbox in observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                sandbox.state = SandboxState::Stopped;
            }
        })
        .await
    }

    async fn remove_pod(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.change(pod, |observed| *observed = Observed::default()).await
    }

    async fn exec(&self, _: &str, _: &[String], _: Duration) -> Result<ExecResult, RuntimeError> {
        Ok(ExecResult { code: 0, output: String::new() })
    }

    async fn start_exec(&self, _: &str, _: &[String], _: Streams) -> Result<Session, RuntimeError> {
        Err(RuntimeError::Hollow { doing: "run a command in a container" })
    }

    async fn attach(&self, _: &str, _: Streams) -> Result<Session, RuntimeError> {
        Err(RuntimeError::Hollow { doing: "attach to a container" })
    }

    async fn connect(&self, _: &PodRef, _: u16) -> Result<TcpStream, RuntimeError> {
        Err(RuntimeError::Hollow { doing: "connect to a port of a pod" })
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream, RuntimeError> {
        let stamp = if options.timestamps { format!("{} ", Timestamp::now()) } else { String::new() };
        let line = format!("{stamp}container {id} runs on a hollow node: it has no output\n");
        let lines = futures::stream::iter((options.tail_lines != Some(0)).then(|| Ok(Bytes::from(line))));
        Ok(if options.follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() })
    }
}

#[cfg(test)]
mod tests;
