//! Environment variables that describe Services, such as `REDIS_SERVICE_HOST`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ServiceChange};

/// Namespace and name of the masters' Service, whose variables every pod gets.
const MASTERS: (&str, &str) = ("default", "kubernetes");
/// Maximum time that a container waits for the first list of Services.
const SYNC_WITHIN: Duration = Duration::from_secs(5);

/// The Services have not been listed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("services have not yet been read at least once, cannot construct envvars")]
pub(crate) struct NotRead;

/// The parts of a Service that its variables show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    address: String,
    /// Name, number and protocol.
    ports: Vec<(Option<String>, i32, String)>,
}

/// The Services that have a cluster IP, by namespace and name.
#[derive(Default)]
pub(crate) struct Services {
    known: RwLock<BTreeMap<(String, String), Shown>>,
    is_read: watch::Sender<bool>,
}

impl Services {
    /// Watches the cluster's Services until `shutdown`.
    pub(crate) async fn follow(&self, cluster: Arc<dyn Cluster>, shutdown: CancellationToken) {
        let mut changes = cluster.services();
        let follow = async {
            while let Some(change) = changes.next().await {
                self.handle_change(change);
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    fn handle_change(&self, change: ServiceChange) {
        let mut known = self.known.write();
        match change {
            ServiceChange::Synced(all) => {
                *known = all.iter().filter_map(|service| Some((key(service), shown(service)?))).collect();
                self.is_read.send_replace(true);
            }
            ServiceChange::Applied(service) => match shown(&service) {
                Some(shown) => {
                    known.insert(key(&service), shown);
                }
                None => {
                    known.remove(&key(&service));
                }
            },
            ServiceChange::Deleted(service) => {
                known.remove(&key(&service));
            }
        }
    }

    /// Returns the variables that a pod's containers get.
    ///
    /// # Errors
    /// When the Services have not been listed in time.
    pub(crate) async fn variables(&self, pod: &Pod) -> Result<BTreeMap<String, String>, NotRead> {
        self.variables_within(pod, SYNC_WITHIN).await
    }

    async fn variables_within(&self, pod: &Pod, limit: Duration) -> Result<BTreeMap<String, String>, NotRead> {
        let mut is_read = self.is_read.subscribe();
        match tokio::time::timeout(limit, is_read.wait_for(|is_read| *is_read)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(NotRead),
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let has_links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
        Ok(variables(&self.known.read(), namespace, has_links))
    }
}

fn key(service: &Service) -> (String, String) {
    let metadata = &service.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Returns the parts of a Service that variables show, or `None` for one without a cluster IP.
fn shown(service: &Service) -> Option<Shown> {
    let spec = service.spec.as_ref()?;
    let address = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    let ports = spec.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (port.name.clone().filter(|name| !name.is_empty()), port.port, protocol)
    });
    Some(Shown { address, ports: ports.collect() })
}

/// Returns the variables in a namespace: those of the masters' Service, and with `has_links` those of its own Services.
fn variables(known: &BTreeMap<(String, String), Shown>, namespace: &str, has_links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let is_of_masters = |key: &(String, String)| (key.0.as_str(), key.1.as_str()) == MASTERS;
    // A Service of the namespace replaces variables of the masters' Service with the same name.
    for (key, service) in known.iter().filter(|(key, _)| is_of_masters(key)) {
        describe(&key.1, service, &mut variables);
    }
    for (key, service) in known.iter().filter(|(key, _)| has_links && key.0 == namespace && !is_of_masters(key)) {
        describe(&key.1, service, &mut variables);
    }
    variables
}

fn describe(name: &str, service: &Shown, variables: &mut BTreeMap<String, String>) {
    let variable = |text: &str| text.replace('-', "_").to_uppercase();
    let prefix = variable(name);
    let address = &service.address;
    let mut set = |name: String, value: String| variables.insert(name, value);
    set(format!("{prefix}_SERVICE_HOST"), address.clone());
    let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    for (index, (port_name, port, protocol)) in service.ports.iter().enumerate() {
        let url = format!("{}://{host}:{port}", protocol.to_lowercase());
        if index == 0 {
            set(format!("{prefix}_SERVICE_PORT"), port.to_string());
            set(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(port_name) = port_name {
            set(format!("{prefix}_SERVICE_PORT_{}", variable(port_name)), port.to_string());
        }
        let link = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        set(format!("{link}_PROTO"), protocol.to_lowercase());
        set(format!("{link}_PORT"), port.to_string());
        set(format!("{link}_ADDR"), address.clone());
        set(link, url);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(namespace: &str, name: &str, spec: Value) -> Service {
        let object = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec });
        serde_json::from_value(object).expect("a service")
    }

    fn lines(variables: &BTreeMap<String, String>) -> Vec<String> {
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn services() -> Services {
        let services = Services::default();
        let two = json!([{ "name": "http", "port": 80, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
        services.handle_change(ServiceChange::Synced(vec![
            service(
                "default",
                "kubernetes",
                json!({ "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443 }] }),
            ),
            service("shop", "web-front", json!({ "clusterIP": "10.96.0.7", "ports": two })),
            service("shop", "headless", json!({ "clusterIP": "None" })),
            service("shop", "elsewhere", json!({ "type": "ExternalName", "externalName": "example.com" })),
            service("other", "hidden", json!({ "clusterIP": "10.96.0.8", "ports": [{ "port": 80 }] })),
        ]));
        services
    }

    fn pod(links: Option<bool>) -> Pod {
        let spec = json!({ "containers": [], "enableServiceLinks": links });
        serde_json::from_value(json!({ "metadata": { "namespace": "shop" }, "spec": spec })).expect("a pod")
    }

    #[tokio::test]
    async fn a_pod_gets_variables_of_its_namespace_and_of_the_masters() {
        let services = services();
        let masters = [
            "KUBERNETES_PORT=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
            "KUBERNETES_PORT_443_TCP_PORT=443",
            "KUBERNETES_PORT_443_TCP_PROTO=tcp",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "KUBERNETES_SERVICE_PORT=443",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
        ];
        let own = [
            "WEB_FRONT_PORT=tcp://10.96.0.7:80",
            "WEB_FRONT_PORT_53_UDP=udp://10.96.0.7:53",
            "WEB_FRONT_PORT_53_UDP_ADDR=10.96.0.7",
            "WEB_FRONT_PORT_53_UDP_PORT=53",
            "WEB_FRONT_PORT_53_UDP_PROTO=udp",
            "WEB_FRONT_PORT_80_TCP=tcp://10.96.0.7:80",
            "WEB_FRONT_PORT_80_TCP_ADDR=10.96.0.7",
            "WEB_FRONT_PORT_80_TCP_PORT=80",
            "WEB_FRONT_PORT_80_TCP_PROTO=tcp",
            "WEB_FRONT_SERVICE_HOST=10.96.0.7",
            "WEB_FRONT_SERVICE_PORT=80",
            "WEB_FRONT_SERVICE_PORT_DNS=53",
            "WEB_FRONT_SERVICE_PORT_HTTP=80",
        ];
        let all: Vec<&str> = masters.into_iter().chain(own).collect();
        assert_eq!(lines(&services.variables(&pod(None)).await.expect("the services are listed")), all);
        assert_eq!(lines(&services.variables(&pod(Some(false))).await.expect("the services are listed")), masters);
    }

    #[tokio::test]
    async fn changes_of_services_are_followed() {
        let services = services();
        let v6 = service("shop", "web-front", json!({ "clusterIP": "fd00::7", "ports": [{ "port": 80 }] }));
        services.handle_change(ServiceChange::Applied(Box::new(v6.clone())));
        let variables = services.variables(&pod(None)).await.expect("the services are listed");
        assert_eq!(variables.get("WEB_FRONT_PORT").map(String::as_str), Some("tcp://[fd00::7]:80"));
        services.handle_change(ServiceChange::Deleted(Box::new(v6)));
        let variables = services.variables(&pod(None)).await.expect("the services are listed");
        assert_eq!(variables.get("WEB_FRONT_PORT"), None);
    }

    #[tokio::test]
    async fn variables_are_refused_before_the_services_are_listed() {
        assert_eq!(Services::default().variables_within(&pod(None), Duration::from_millis(1)).await, Err(NotRead));
    }
}
