//! [`Cluster`] over the masters' REST API.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::ready;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, PodStatus, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterError, ObjectChange, ObjectRef, PodChange, ServiceChange};
use crate::plan::{PASSING, PodRef};

/// Maximum duration of one request, failover included.
const DEADLINE: Duration = Duration::from_secs(12);
const LEASES: &str = "kube-node-lease";

/// [`Cluster`] over a kube client.
pub struct ApiCluster {
    client: Client,
    node_name: String,
}

impl ApiCluster {
    #[must_use]
    pub fn new(client: Client, node_name: &str) -> Self {
        ApiCluster { client, node_name: node_name.to_owned() }
    }

    fn pod_api(&self, pod: &PodRef) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), LEASES)
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused {
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        Ok(Err(error)) => Err(ClusterError::Unreachable(error.into())),
        Err(elapsed) => Err(ClusterError::Unreachable(elapsed.into())),
    }
}

/// Delays between attempts to resume a watch. The first ones are short, since failover takes well under a second.
#[derive(Clone, Default)]
struct WatchBackoff {
    attempts: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(50) * 2_u32.pow(self.attempts.min(5));
        self.attempts += 1;
        Some(delay + Duration::from_millis(u64::from(rand::random::<u8>() / 4)))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.attempts = 0;
    }
}

fn changes<K>(api: Api<K>, name: &str) -> BoxStream<'static, ()>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config)
        .backoff(WatchBackoff::default())
        .filter_map(|event| {
            ready(match event {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => None,
                Ok(_) => Some(()),
            })
        })
        .boxed()
}

/// Watches objects and begins again after each break. `what` names them in the log.
fn object_changes<K>(api: Api<K>, config: watcher::Config, what: &'static str) -> BoxStream<'static, ObjectChange<K>>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = Vec::new();
    watcher(api, config)
        .backoff(WatchBackoff::default())
        .filter_map(move |event| {
            ready(match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    None
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.push(object);
                    None
                }
                Ok(watcher::Event::InitDone) => Some(ObjectChange::Synced(std::mem::take(&mut listed))),
                Ok(watcher::Event::Apply(object)) => Some(ObjectChange::Applied(Box::new(object))),
                Ok(watcher::Event::Delete(object)) => Some(ObjectChange::Deleted(Box::new(object))),
                Err(error) => {
                    tracing::debug!(error = %error, "the watch of {what} broke off");
                    None
                }
            })
        })
        .boxed()
}

#[async_trait]
impl Cluster for ApiCluster {
    fn pods(&self) -> BoxStream<'static, PodChange> {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node_name));
        object_changes(Api::all(self.client.clone()), config, "this node's pods")
    }

    fn services(&self) -> BoxStream<'static, ServiceChange> {
        object_changes(Api::all(self.client.clone()), watcher::Config::default(), "the services")
    }

    fn changes_of(&self, object: &ObjectRef) -> BoxStream<'static, ()> {
        match object {
            ObjectRef::ConfigMap { namespace, name } => {
                changes(Api::<ConfigMap>::namespaced(self.client.clone(), namespace), name)
            }
            ObjectRef::Secret { namespace, name } => {
                changes(Api::<Secret>::namespaced(self.client.clone(), namespace), name)
            }
        }
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError> {
        within(Api::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
        within(Api::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    async fn report_pod(&self, pod: &PodRef, status: &PodStatus) -> Result<(), ClusterError> {
        let patch = status_patch(pod, status);
        let api = self.pod_api(pod);
        within(api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch))).await?;
        Ok(())
    }

    async fn is_assigned(&self, pod: &PodRef) -> Result<bool, ClusterError> {
        // A read without a resource version is linearizable.
        let found = within(self.pod_api(pod).get_opt(&pod.name)).await?;
        Ok(found.is_some_and(|found| {
            let node = found.spec.and_then(|spec| spec.node_name);
            found.metadata.uid.as_deref() == Some(&pod.uid) && node.as_deref() == Some(&self.node_name)
        }))
    }

    async fn release_pod(&self, pod: &PodRef) -> Result<(), ClusterError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let api = self.pod_api(pod);
        within(api.delete(&pod.name, &params)).await?;
        Ok(())
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, ClusterError> {
        within(Api::<Node>::all(self.client.clone()).get_opt(name)).await
    }

    async fn create_node(&self, node: &Node) -> Result<(), ClusterError> {
        within(Api::<Node>::all(self.client.clone()).create(&PostParams::default(), node)).await?;
        Ok(())
    }

    async fn report_node(&self, node: &Node) -> Result<(), ClusterError> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Strategic(json!({ "status": node.status }));
        let api = Api::<Node>::all(self.client.clone());
        within(api.patch_status(name, &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    async fn label_node(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let api = Api::<Node>::all(self.client.clone());
        within(api.patch(name, &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    async fn renew_lease(&self, node: &str, spec: &LeaseSpec) -> Result<(), ClusterError> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        within(self.leases().patch(node, &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    async fn create_lease(&self, node: &Node, spec: &LeaseSpec) -> Result<(), ClusterError> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: Some(LEASES.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        let lease = Lease { metadata, spec: Some(spec.clone()) };
        within(self.leases().create(&PostParams::default(), &lease)).await?;
        Ok(())
    }

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        within(api.create(&PostParams::default(), event)).await?;
        Ok(())
    }

    async fn repeat_event(&self, event: &Event) -> Result<(), ClusterError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({ "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message });
        within(api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }
}

/// Returns the strategic patch that merges an agent's report into the status of the pod with this uid. Conditions and
/// fields of other writers stay as they are.
#[must_use]
pub fn status_patch(pod: &PodRef, status: &PodStatus) -> Value {
    json!({ "metadata": { "uid": pod.uid }, "status": explicit(status) })
}

/// Returns the status as a strategic patch that removes everything of the previous report: fields that are unset become
/// `null`, and the list of addresses is replaced.
fn explicit(status: &PodStatus) -> Value {
    let mut value = json!(status);
    nullify(&mut value, &["message", "reason", "podIP", "podIPs"]);
    if let Some(conditions) = value["conditions"].as_array_mut() {
        conditions.iter_mut().for_each(|condition| nullify(condition, &["message", "reason"]));
        for type_ in PASSING {
            if !conditions.iter().any(|condition| condition["type"] == type_) {
                conditions.push(json!({ "type": type_, "$patch": "delete" }));
            }
        }
    }
    for list in ["podIPs", "hostIPs"] {
        if let Some(addresses) = value[list].as_array_mut() {
            addresses.insert(0, json!({ "$patch": "replace" }));
        }
    }
    value
}

fn nullify(object: &mut Value, fields: &[&str]) {
    for field in fields {
        if object.get(field).is_none() {
            object[*field] = Value::Null;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};
    use quorate_api::GroupVersionKind;
    use quorate_api::patch::strategic;

    use super::*;

    fn status(ready: bool, ip: &str) -> PodStatus {
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: if ready { "True" } else { "False" }.to_owned(),
            reason: (!ready).then(|| "ContainersNotReady".to_owned()),
            message: (!ready).then(|| "containers with unready status: [c]".to_owned()),
            ..PodCondition::default()
        };
        PodStatus {
            conditions: Some(vec![condition]),
            pod_ip: Some(ip.to_owned()),
            pod_ips: Some(vec![PodIP { ip: ip.to_owned() }]),
            ..PodStatus::default()
        }
    }

    #[test]
    fn a_report_replaces_the_previous_one_and_keeps_fields_of_others() {
        let kind = GroupVersionKind { group: "".into(), version: "v1".into(), kind: "Pod".into() };
        let foreign = json!({ "type": "example.com/gate", "status": "True", "reason": "Open" });
        let mut stored = json!({ "status": { "conditions": [foreign], "nominatedNodeName": "node-b" } });
        for (ready, ip) in [(false, "10.0.0.1"), (true, "10.0.0.2")] {
            let pod = PodRef { namespace: "shop".into(), name: "web".into(), uid: "u1".into() };
            let patch = status_patch(&pod, &status(ready, ip));
            strategic::apply(&kind, &mut stored, &patch).expect("a patch");
        }
        let conditions = stored["status"]["conditions"].as_array().expect("conditions");
        assert!(conditions.contains(&foreign), "{conditions:?}");
        assert!(conditions.contains(&json!({ "type": "Ready", "status": "True" })), "{conditions:?}");
        assert_eq!(stored["status"]["nominatedNodeName"], "node-b", "the field belongs to the scheduler");
        assert_eq!(
            (&stored["status"]["podIP"], &stored["status"]["podIPs"]),
            (&json!("10.0.0.2"), &json!([{ "ip": "10.0.0.2" }]))
        );
    }
}
