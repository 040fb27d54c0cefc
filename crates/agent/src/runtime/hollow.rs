//! The runtime that starts nothing and reports what healthy containers would.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Capabilities, ContainerSpec, ExecResult, ImageError, KnownPod, LogOptions, LogStream, Runtime, RuntimeError,
    RuntimeInfo, SandboxSpec,
};
use crate::plan::{ContainerRecord, Exit, Observed, PodRef, RunState, Sandbox, SandboxState};

struct HollowPod {
    pod: Option<PodRef>,
    state: watch::Sender<Arc<Observed>>,
    /// Containers that end, successfully, as soon as they are started.
    short_lived: HashSet<String>,
}

/// Pods that exist only in this process.
pub struct HollowRuntime {
    pods: Mutex<HashMap<String, HollowPod>>,
    /// The second and third octet of the pods' made-up addresses.
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
            range: (128 + high % 128, low),
            next_address: AtomicU32::new(1),
        }
    }

    fn change(&self, uid: &str, pod: Option<&PodRef>, change: impl FnOnce(&mut Observed)) {
        let mut pods = self.pods.lock();
        let entry = pods.entry(uid.to_owned()).or_insert_with(|| HollowPod {
            pod: None,
            state: watch::Sender::default(),
            short_lived: HashSet::new(),
        });
        if let Some(pod) = pod {
            entry.pod = Some(pod.clone());
        }
        entry.state.send_modify(|observed| change(Arc::make_mut(observed)));
    }

    fn address(&self) -> String {
        let host = self.next_address.fetch_add(1, Ordering::Relaxed) % 254 + 1;
        format!("10.{}.{}.{host}", self.range.0, self.range.1)
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
        Ok(())
    }

    async fn observe(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }

    fn known_pods(&self) -> Vec<KnownPod> {
        let pods = self.pods.lock();
        let known = pods.values().filter_map(|entry| {
            let pod = entry.pod.clone()?;
            Some(KnownPod { pod, sandbox_running: entry.state.borrow().sandbox().is_some() })
        });
        known.collect()
    }

    fn subscribe(&self, uid: &str) -> watch::Receiver<Arc<Observed>> {
        self.change(uid, None, |_| {});
        let pods = self.pods.lock();
        pods.get(uid).map_or_else(|| watch::Sender::new(Arc::default()).subscribe(), |entry| entry.state.subscribe())
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
        self.change(&spec.pod.uid, Some(&spec.pod), |observed| observed.sandboxes.push(sandbox));
        Ok(())
    }

    async fn start_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        self.change(&pod.uid, None, |observed| {
            for sandbox in observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                sandbox.state = SandboxState::Running;
            }
        });
        Ok(())
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
        let mut pods = self.pods.lock();
        if spec.runs_to_completion
            && let Some(entry) = pods.get_mut(&spec.pod.uid)
        {
            entry.short_lived.insert(record.id.clone());
        }
        drop(pods);
        self.change(&spec.pod.uid, Some(&spec.pod), |observed| observed.containers.push(record));
        Ok(())
    }

    async fn start_container(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        let ends = self.pods.lock().get_mut(&pod.uid).is_some_and(|entry| entry.short_lived.remove(id));
        self.change(&pod.uid, None, |observed| {
            for record in observed.containers.iter_mut().filter(|record| record.id == id) {
                record.state = RunState::Running { started_at: Timestamp::now() };
                if ends {
                    record.state = ended(record);
                }
            }
        });
        Ok(())
    }

    async fn stop_container(&self, pod: &PodRef, id: &str, _: Duration) -> Result<(), RuntimeError> {
        self.change(&pod.uid, None, |observed| {
            for record in observed.containers.iter_mut().filter(|record| record.id == id && record.is_running()) {
                record.state = ended(record);
            }
        });
        Ok(())
    }

    async fn remove(&self, pod: &PodRef, ids: &[String]) -> Result<(), RuntimeError> {
        self.change(&pod.uid, None, |observed| {
            observed.containers.retain(|record| !ids.contains(&record.id));
            observed.sandboxes.retain(|sandbox| !ids.contains(&sandbox.id));
        });
        Ok(())
    }

    async fn stop_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        self.change(&pod.uid, None, |observed| {
            for sandbox in observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                sandbox.state = SandboxState::Stopped;
            }
        });
        Ok(())
    }

    async fn remove_pod(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.change(&pod.uid, None, |observed| *observed = Observed::default());
        Ok(())
    }

    async fn exec(&self, _: &str, _: &[String], _: Duration) -> Result<ExecResult, RuntimeError> {
        Ok(ExecResult { code: 0, output: String::new() })
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream, RuntimeError> {
        let stamp = if options.timestamps { format!("{} ", Timestamp::now()) } else { String::new() };
        let line = format!("{stamp}container {id} runs on a hollow node: it has no output\n");
        let lines = futures::stream::iter((options.tail_lines != Some(0)).then(|| Ok(Bytes::from(line))));
        Ok(if options.follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() })
    }
}
