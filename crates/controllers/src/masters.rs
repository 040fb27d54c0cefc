//! The Service `default/kubernetes`, through which pods reach the masters, and its endpoints: every live master.

pub mod liveness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as CorePort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::cache::Cache;
use crate::plan::{Action, Plan};
use crate::resource::{ENDPOINT_SLICES, ENDPOINTS, SERVICES, delete, name, target, to_json};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const PORT_NAME: &str = "https";
/// Port of the Service.
const PORT: i32 = 443;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "masters.quorate.io");
/// Label that keeps controllers from mirroring the Endpoints object into slices.
const SKIP_MIRROR: (&str, &str) = ("endpointslice.kubernetes.io/skip-mirror", "true");

/// Returns the stored endpoints.
#[must_use]
pub fn present(cache: &Cache) -> BTreeSet<SocketAddr> {
    let stored = cache.endpoints().get(NAMESPACE, NAME);
    let subsets = stored.and_then(|endpoints| endpoints.subsets.as_ref()).into_iter().flatten();
    subsets
        .flat_map(|subset| {
            let ips = subset.addresses.iter().flatten().filter_map(|address| address.ip.parse::<IpAddr>().ok());
            let ports = subset.ports.iter().flatten().filter_map(|port| u16::try_from(port.port).ok());
            let ports: Vec<u16> = ports.collect();
            ips.flat_map(move |ip| ports.clone().into_iter().map(move |port| SocketAddr::new(ip, port)))
        })
        .collect()
}

/// Plans the writes that bring the Service and its endpoints up to date. `address` is the Service's cluster IP.
/// `masters` are the reachable REST API addresses of the live masters.
#[must_use]
pub fn reconcile(cache: &Cache, address: IpAddr, masters: &BTreeSet<SocketAddr>) -> Plan {
    let mut actions = Vec::new();
    if cache.namespaces().get("", NAMESPACE).is_none() {
        return Plan::default();
    }
    let target_port = masters.first().map_or(6443, SocketAddr::port);
    actions.extend(service(cache.services().get(NAMESPACE, NAME).map(|s| &**s), address, target_port));
    actions.extend(endpoints(cache.endpoints().get(NAMESPACE, NAME).map(|e| &**e), masters));
    actions.extend(slices(cache, masters));
    Plan { actions, requeue_after: None }
}

fn service(present: Option<&Service>, address: IpAddr, target_port: u16) -> Option<Action> {
    let ports = json!([{ "name": PORT_NAME, "port": PORT, "protocol": "TCP", "targetPort": target_port }]);
    let Some(present) = present else {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": NAME, "namespace": NAMESPACE, "labels": { "component": "apiserver", "provider": NAME },
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": address.to_string(), "ports": ports,
                "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            },
        });
        return Some(Action::Create { resource: SERVICES, namespace: Some(NAMESPACE.to_owned()), object });
    };
    let spec = present.spec.as_ref()?;
    let is_right = spec.type_.as_deref() == Some("ClusterIP")
        && spec.selector.as_ref().is_none_or(BTreeMap::is_empty)
        && spec.ports.as_ref().is_some_and(|ports| {
            matches!(ports.as_slice(), [port] if port.name.as_deref() == Some(PORT_NAME)
                && port.port == PORT
                && port.protocol.as_deref() == Some("TCP")
                && port.target_port == Some(IntOrString::Int(target_port.into())))
        });
    let patch = json!({ "spec": { "type": "ClusterIP", "ports": ports, "selector": null } });
    (!is_right).then(|| Action::Patch {
        target: target(SERVICES, &present.metadata),
        subresource: None,
        patch,
        guards: Vec::new(),
    })
}

/// Groups the masters' addresses by IP family (`true` for IPv6) and port.
fn groups(masters: &BTreeSet<SocketAddr>) -> BTreeMap<(bool, u16), BTreeSet<IpAddr>> {
    let mut groups: BTreeMap<(bool, u16), BTreeSet<IpAddr>> = BTreeMap::new();
    for master in masters {
        groups.entry((master.is_ipv6(), master.port())).or_default().insert(master.ip());
    }
    groups
}

fn endpoints(present: Option<&Endpoints>, masters: &BTreeSet<SocketAddr>) -> Option<Action> {
    let address = |ip: &IpAddr| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() };
    let subset = |((_, port), ips): (&(bool, u16), &BTreeSet<IpAddr>)| EndpointSubset {
        addresses: Some(ips.iter().map(address).collect()),
        not_ready_addresses: None,
        ports: Some(vec![CorePort {
            name: Some(PORT_NAME.to_owned()),
            port: i32::from(*port),
            protocol: Some("TCP".to_owned()),
            ..CorePort::default()
        }]),
    };
    let subsets: Vec<EndpointSubset> = groups(masters).iter().map(subset).collect();
    let (label, value) = SKIP_MIRROR;
    let mut wanted = present.cloned().unwrap_or_default();
    wanted.metadata.name = Some(NAME.to_owned());
    wanted.metadata.namespace = Some(NAMESPACE.to_owned());
    wanted.metadata.labels.get_or_insert_default().insert(label.to_owned(), value.to_owned());
    let is_same = present.is_some_and(|present| {
        present.metadata.labels == wanted.metadata.labels && present.subsets.clone().unwrap_or_default() == subsets
    });
    wanted.subsets = Some(subsets);
    match present {
        Some(_) if is_same => None,
        Some(_) => Some(Action::Update {
            target: target(ENDPOINTS, &wanted.metadata),
            subresource: None,
            object: to_json(&wanted),
        }),
        None => Some(Action::Create {
            resource: ENDPOINTS,
            namespace: Some(NAMESPACE.to_owned()),
            object: to_json(&wanted),
        }),
    }
}

fn slices(cache: &Cache, masters: &BTreeSet<SocketAddr>) -> Vec<Action> {
    let mut groups: Vec<_> = groups(masters).into_iter().collect();
    if groups.is_empty() {
        // An empty slice records that there are no endpoints.
        groups.push(((false, 6443), BTreeSet::new()));
    }
    let mut actions = Vec::new();
    let mut wanted_names = BTreeSet::new();
    for (index, ((is_v6, port), addresses)) in groups.into_iter().enumerate() {
        let family = if is_v6 { "IPv6" } else { "IPv4" };
        let slice_name =
            if index == 0 { NAME.to_owned() } else { format!("{NAME}-{}-{port}", family.to_ascii_lowercase()) };
        let present = cache.endpoint_slices().get(NAMESPACE, &slice_name).map(|slice| &**slice);
        let wanted = slice(&slice_name, family, port, &addresses);
        wanted_names.insert(slice_name);
        actions.extend(match present {
            Some(present) if is_same(present, &wanted) => None,
            // The address type of a slice is immutable.
            Some(present) if present.address_type != wanted.address_type => {
                Some(delete(target(ENDPOINT_SLICES, &present.metadata), present.metadata.uid.as_deref()))
            }
            Some(present) => {
                let mut object = wanted;
                object.metadata.resource_version.clone_from(&present.metadata.resource_version);
                Some(Action::Update {
                    target: target(ENDPOINT_SLICES, &present.metadata),
                    subresource: None,
                    object: to_json(&object),
                })
            }
            None => Some(Action::Create {
                resource: ENDPOINT_SLICES,
                namespace: Some(NAMESPACE.to_owned()),
                object: to_json(&wanted),
            }),
        });
    }
    let (label, value) = MANAGED_BY;
    let is_left = |slice: &&std::sync::Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
            && !wanted_names.contains(name(&slice.metadata))
    };
    let left = cache.endpoint_slices().in_namespace(NAMESPACE).filter(is_left);
    actions.extend(left.map(|slice| delete(target(ENDPOINT_SLICES, &slice.metadata), slice.metadata.uid.as_deref())));
    actions
}

fn slice(slice_name: &str, family: &str, port: u16, addresses: &BTreeSet<IpAddr>) -> EndpointSlice {
    let (label, value) = MANAGED_BY;
    let labels = [(SERVICE_NAME, NAME), (label, value)];
    let endpoint = |ip: &IpAddr| Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(slice_name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(addresses.iter().map(endpoint).collect()),
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(i32::from(port)),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}

fn is_same(present: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    present.metadata.labels == wanted.metadata.labels
        && present.address_type == wanted.address_type
        && present.endpoints.clone().unwrap_or_default() == wanted.endpoints.clone().unwrap_or_default()
        && present.ports == wanted.ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Cluster;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));

    fn masters(addresses: &[&str]) -> BTreeSet<SocketAddr> {
        addresses.iter().map(|address| address.parse().expect("an address")).collect()
    }

    /// Executes plans until there is nothing left to do.
    fn settle(cluster: &mut Cluster, addresses: &[&str]) {
        for _ in 0..3 {
            let plan = reconcile(&cluster.cache, ADDRESS, &masters(addresses));
            cluster.carry_out_plan(&plan);
        }
        let plan = reconcile(&cluster.cache, ADDRESS, &masters(addresses));
        assert!(plan.is_empty(), "it does not settle: {plan:?}");
        assert_eq!(present(&cluster.cache), masters(addresses));
    }

    fn addresses(cluster: &Cluster) -> Vec<String> {
        let endpoints = cluster.get("endpoints/default/kubernetes").expect("the endpoints");
        let mut found = Vec::new();
        for subset in endpoints["subsets"].as_array().into_iter().flatten() {
            for address in subset["addresses"].as_array().into_iter().flatten() {
                found.push(format!("{}:{}", address["ip"].as_str().unwrap_or_default(), subset["ports"][0]["port"]));
            }
        }
        let mut in_slices = Vec::new();
        for name in cluster.names("endpointslices") {
            let slice = cluster.get(&format!("discovery.k8s.io/endpointslices/default/{name}")).expect("a slice");
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let ip = endpoint["addresses"][0].as_str().unwrap_or_default();
                in_slices.push(format!("{ip}:{}", slice["ports"][0]["port"]));
            }
        }
        found.sort();
        in_slices.sort();
        assert_eq!(found, in_slices, "both forms say the same");
        found
    }

    #[test]
    fn the_service_and_its_endpoints_follow_the_masters() {
        let mut cluster = Cluster::new();
        settle(&mut cluster, &["192.0.2.1:6443", "192.0.2.2:6443", "192.0.2.3:6443"]);
        let service = cluster.get("services/default/kubernetes").expect("the service");
        assert_eq!(
            (&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["port"]),
            (&json!("10.96.0.1"), &json!(443))
        );
        assert_eq!(addresses(&cluster), ["192.0.2.1:6443", "192.0.2.2:6443", "192.0.2.3:6443"]);
        settle(&mut cluster, &["192.0.2.1:6443", "192.0.2.3:6443"]);
        assert_eq!(addresses(&cluster), ["192.0.2.1:6443", "192.0.2.3:6443"]);
        settle(&mut cluster, &["192.0.2.1:6443", "192.0.2.3:7443", "[fd00::1]:6443"]);
        assert_eq!(addresses(&cluster), ["192.0.2.1:6443", "192.0.2.3:7443", "fd00::1:6443"]);
        settle(&mut cluster, &[]);
        assert_eq!((addresses(&cluster), cluster.names("endpointslices").len()), (vec![], 1));
        settle(&mut cluster, &["[fd00::1]:6443"]);
        assert_eq!(addresses(&cluster), ["fd00::1:6443"]);
    }

    #[test]
    fn a_service_that_was_changed_or_deleted_is_restored() {
        let mut cluster = Cluster::new();
        let one = ["192.0.2.1:6443"];
        settle(&mut cluster, &one);
        cluster
            .patch("services/default/kubernetes", &json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}));
        settle(&mut cluster, &one);
        let service = cluster.get("services/default/kubernetes").expect("the service");
        assert_eq!((&service["spec"]["ports"][0]["port"], service["spec"].get("selector")), (&json!(443), None));
        cluster.delete("services/default/kubernetes", None);
        settle(&mut cluster, &one);
        assert!(cluster.get("services/default/kubernetes").is_some());
    }
}
