//! The fake masters as an agent sees them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, PodStatus, Secret};
use quorate_agent::cluster::{Cluster, ClusterError, ObjectRef, PodChange, ServiceChange};
use quorate_agent::plan::PodRef;
use quorate_agent::status_patch;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{BroadcastStream, UnboundedReceiverStream};

use super::FakeCluster;
use super::cluster::not_found;

#[async_trait]
impl Cluster for FakeCluster {
    fn pods(&self) -> BoxStream<'static, PodChange> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let pods = self.pods.lock();
        if self.check().is_ok() {
            let all = pods.values().cloned().collect();
            sender.send(PodChange::Synced(all)).expect("the receiver is here");
        }
        self.watchers.lock().push(sender);
        drop(pods);
        UnboundedReceiverStream::new(receiver).boxed()
    }

    fn services(&self) -> BoxStream<'static, ServiceChange> {
        let none = futures::stream::once(std::future::ready(ServiceChange::Synced(Vec::new())));
        none.chain(futures::stream::pending()).boxed()
    }

    fn changes_of(&self, _: &ObjectRef) -> BoxStream<'static, ()> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "the test wants a panic");
        BroadcastStream::new(self.object_changes.subscribe()).map(|_| ()).boxed()
    }

    async fn config_map(&self, _: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError> {
        self.check()?;
        Ok(self.config_maps.lock().get(name).cloned())
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
        self.check()?;
        Ok(self.secrets.lock().get(name).cloned())
    }

    async fn report_pod(&self, pod: &PodRef, status: &PodStatus) -> Result<(), ClusterError> {
        self.held_reports.fetch_add(1, Ordering::SeqCst);
        while self.holds_reports.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.held_reports.fetch_sub(1, Ordering::SeqCst);
        self.check()?;
        let before = foreign_conditions(&self.status(pod));
        self.apply_patch(pod, &status_patch(pod, status))?;
        let after = self.pods.lock().get(&pod.uid).and_then(|pod| pod.status.clone());
        // The agent may have released the pod meanwhile.
        if let Some(after) = after.map(|status| foreign_conditions(&status))
            && before != after
        {
            self.overwritten.lock().push((before, after));
        }
        Ok(())
    }

    async fn is_assigned(&self, pod: &PodRef) -> Result<bool, ClusterError> {
        self.check()?;
        Ok(self.pods.lock().contains_key(&pod.uid))
    }

    async fn release_pod(&self, pod: &PodRef) -> Result<(), ClusterError> {
        self.check()?;
        let mut pods = self.pods.lock();
        if let Some(gone) = pods.remove(&pod.uid) {
            self.ended.lock().insert(pod.uid.clone(), gone.status.clone().unwrap_or_default());
            self.send_change(&PodChange::Deleted(Box::new(gone)));
        }
        Ok(())
    }

    async fn node(&self, _: &str) -> Result<Option<Node>, ClusterError> {
        self.check()?;
        Ok(self.node.lock().clone())
    }

    async fn create_node(&self, node: &Node) -> Result<(), ClusterError> {
        self.check()?;
        let mut stored = self.node.lock();
        if stored.is_some() {
            return Err(ClusterError::Refused {
                code: 409,
                reason: "AlreadyExists".into(),
                message: "it exists".into(),
            });
        }
        let mut node = node.clone();
        node.metadata.uid = Some(format!("node-{:016x}", rand::random::<u64>()));
        *stored = Some(node);
        Ok(())
    }

    async fn report_node(&self, node: &Node) -> Result<(), ClusterError> {
        self.check()?;
        let mut stored = self.node.lock();
        let Some(stored) = stored.as_mut() else { return Err(not_found("no such node")) };
        stored.status.clone_from(&node.status);
        self.node_reports.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn label_node(&self, _: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        self.check()?;
        let mut stored = self.node.lock();
        let Some(stored) = stored.as_mut() else { return Err(not_found("no such node")) };
        stored.metadata.labels.get_or_insert_default().extend(labels.clone());
        Ok(())
    }

    async fn renew_lease(&self, _: &str, _: &LeaseSpec) -> Result<(), ClusterError> {
        self.check()?;
        if self.lease_owner.lock().is_some() { Ok(()) } else { Err(not_found("no such lease")) }
    }

    async fn create_lease(&self, node: &Node, _: &LeaseSpec) -> Result<(), ClusterError> {
        self.check()?;
        self.lease_owner.lock().clone_from(&node.metadata.uid);
        Ok(())
    }

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError> {
        self.check()?;
        self.events.lock().push(event.clone());
        Ok(())
    }

    async fn repeat_event(&self, _: &Event) -> Result<(), ClusterError> {
        self.check()?;
        self.repeated_events.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Returns the conditions of a pod that its node does not own.
fn foreign_conditions(status: &PodStatus) -> Value {
    let own = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| !own.contains(&condition.type_.as_str()))
        .map(|c| json!(c))
        .collect()
}
