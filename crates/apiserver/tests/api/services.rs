//! Addresses and node ports of Services, written in one transaction with their Service.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_apiserver::{ALLOCATIONS, Api, bootstrap, repair_allocations};
use quorate_mvcc::{Command, DeleteRequest, KeyRange, Op, PutRequest, RangeRequest, Txn};
use quorate_registry::pool::Pools;
use quorate_store::{Consistency, Store};
use serde_json::{Value, json};

use crate::harness::{Client, Server, local};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
    });
    for (field, value) in spec.as_object().expect("a spec") {
        object["spec"][field] = value.clone();
    }
    object
}

/// Returns the allocated items, by the last part of their keys.
async fn allocated(api: &Api) -> BTreeSet<String> {
    let request = RangeRequest::new(KeyRange::prefix(ALLOCATIONS));
    let rows = api.store().range(&request, Consistency::Local).await.expect("a range").kvs;
    rows.iter().map(|kv| String::from_utf8_lossy(&kv.key[ALLOCATIONS.len()..]).into_owned()).collect()
}

fn held(services: &[&Value]) -> BTreeSet<String> {
    let mut items = BTreeSet::new();
    for service in services {
        let spec = &service["spec"];
        let addresses = spec["clusterIPs"].as_array().into_iter().flatten().filter(|ip| *ip != "None");
        items.extend(addresses.map(|ip| format!("addresses/{}", ip.as_str().unwrap_or_default())));
        let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
        let ports = ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64);
        items.extend(ports.map(|port| format!("ports/{port}")));
    }
    items
}

async fn patch(admin: &Client, name: &str, spec: Value) -> Value {
    admin.patch(&format!("{SERVICES}/{name}"), "merge", &json!({ "spec": spec })).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn allocations_follow_the_service_type_and_are_released_with_it() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(SERVICES, &service("web", json!({ "type": "NodePort" }))).await.expect(201);
    let ip = created["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    assert!(ip.starts_with("10.96."), "{ip}");
    let port = created["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    assert!((30_000..=32_767).contains(&port), "{port}");
    assert_eq!(allocated(&server.api).await, held(&[&created]));

    let plain = patch(&admin, "web", json!({ "type": "ClusterIP" })).await;
    assert_eq!((&plain["spec"]["clusterIP"], plain["spec"]["ports"][0].get("nodePort")), (&json!(ip), None));
    assert_eq!(allocated(&server.api).await, held(&[&plain]), "the port is free again");

    let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let balanced = patch(&admin, "web", local).await;
    assert_eq!(held(&[&balanced]).len(), 3, "an address, a node port and one for health checks: {balanced}");
    assert_eq!(allocated(&server.api).await, held(&[&balanced]));

    let external = patch(&admin, "web", json!({ "type": "ExternalName", "externalName": "example.com" })).await;
    assert_eq!((held(&[&external]), allocated(&server.api).await), (BTreeSet::new(), BTreeSet::new()));
    let back = patch(&admin, "web", json!({ "type": "ClusterIP", "externalName": null })).await;
    assert_eq!(allocated(&server.api).await, held(&[&back]));

    let headless = admin.post(SERVICES, &service("headless", json!({ "clusterIP": "None" }))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let address = json!({ "spec": { "clusterIP": "10.96.3.3" } });
    let refused = admin.patch(&format!("{SERVICES}/headless"), "merge", &address).await;
    assert_eq!(
        refused.failure().2,
        "Service \"headless\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.96.3.3\"]: may not change once set"
    );
    admin.delete(&format!("{SERVICES}/web"), &json!({})).await.expect(200);
    assert_eq!(allocated(&server.api).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_for_a_finalizer_keeps_its_address() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = service("web", json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let created = admin.post(SERVICES, &object).await.expect(201);
    admin.delete(&format!("{SERVICES}/web"), &json!({})).await.expect(200);
    assert_eq!(allocated(&server.api).await, held(&[&created]));
    let released = json!({ "metadata": { "finalizers": null } });
    admin.patch(&format!("{SERVICES}/web"), "merge", &released).await.expect(200);
    assert_eq!(allocated(&server.api).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_addresses_and_ports_are_allocated_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let asked = json!({ "type": "NodePort", "clusterIP": "10.96.7.7", "ports": [{ "port": 80, "nodePort": 30_080 }] });
    let first = admin.post(SERVICES, &service("first", asked.clone())).await.expect(201);
    assert_eq!(
        (&first["spec"]["clusterIPs"], &first["spec"]["ports"][0]["nodePort"]),
        (&json!(["10.96.7.7"]), &json!(30_080))
    );
    let refused = |spec: Value| async {
        let answer = admin.post(SERVICES, &service("second", spec)).await;
        let (code, reason, message) = answer.failure();
        assert_eq!((code, reason.as_str()), (422, "Invalid"));
        message.strip_prefix("Service \"second\" is invalid: ").expect("whose it is").to_owned()
    };
    assert_eq!(
        refused(json!({ "clusterIP": "10.96.7.7" })).await,
        "spec.clusterIPs: Invalid value: [\"10.96.7.7\"]: failed to allocate IP 10.96.7.7: provided IP is already allocated"
    );
    assert_eq!(
        refused(json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30_080 }] })).await,
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    assert_eq!(
        refused(json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 80 }] })).await,
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
    assert!(refused(json!({ "clusterIP": "10.97.0.1" })).await.ends_with("The range of valid IPs is 10.96.0.0/16"));
    assert_eq!(allocated(&server.api).await, held(&[&first]), "a refused service holds nothing");

    let second = admin.post(SERVICES, &service("second", json!({ "type": "NodePort" }))).await.expect(201);
    let before = server.api.store().revision();
    let dry = admin.post(&format!("{SERVICES}?dryRun=All"), &service("third", json!({ "type": "NodePort" }))).await;
    assert_eq!(held(&[&dry.expect(201)]).len(), 2, "a dry run shows the allocations");
    assert_eq!(server.api.store().revision(), before);
    // A replacement that leaves out an allocated item keeps it. One that asks for another Service's port is refused.
    let mut replacement = service("second", json!({ "type": "NodePort" }));
    replacement["metadata"]["labels"] = json!({ "a": "b" });
    let replaced = admin.put(&format!("{SERVICES}/second"), &replacement).await.expect(200);
    assert_eq!(replaced["spec"], second["spec"]);
    replacement["spec"]["ports"][0]["nodePort"] = 30_080.into();
    assert_eq!(admin.put(&format!("{SERVICES}/second"), &replacement).await.code, 422);
    // A released port can be allocated, and the previous port is released.
    admin.delete(&format!("{SERVICES}/first"), &json!({})).await.expect(200);
    let moved = admin.put(&format!("{SERVICES}/second"), &replacement).await.expect(200);
    assert_eq!(
        (&moved["spec"]["ports"][0]["nodePort"], allocated(&server.api).await),
        (&json!(30_080), held(&[&moved]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_range_refuses_and_a_hundred_clients_never_share_an_address() {
    let store = Store::memory();
    let block = "10.5.0.0/26".parse().expect("a block");
    let pools = || Pools::new(vec![block], 31_000..=31_099).expect("pools");
    // Two servers over one store stand for two masters.
    let masters: Vec<Api> =
        (0..2).map(|_| Api::with_pools(store.clone(), quorate_registry::builtin(), pools())).collect();
    bootstrap(&masters[0]).await.expect("the cluster's first objects");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = local(&masters[number % 2]);
        tasks.spawn(async move {
            let services = quorate_api::GroupVersionResource::from_static("", "v1", "services");
            let object = service(&format!("s{number}"), json!({ "type": "NodePort" }));
            client.create(&services, Some("default"), object).await
        });
    }
    let (mut made, mut refused) = (Vec::new(), 0);
    for result in tasks.join_all().await {
        match result {
            Ok(service) => made.push(service),
            Err(status) => {
                let full = "failed to allocate a serviceIP: range is full";
                assert!(status.code == 500 && status.message.ends_with(full), "{status:?}");
                refused += 1;
            }
        }
    }
    // The block has 62 usable addresses.
    assert_eq!((made.len(), refused), (62, 38));
    let held = held(&made.iter().collect::<Vec<_>>());
    assert_eq!((held.len(), allocated(&masters[0]).await), (124, held));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_a_dual_stack_cluster_have_two_families() {
    let blocks = vec!["10.5.0.0/24".parse().expect("a block"), "fd00:5::/112".parse().expect("a block")];
    let api = Api::with_pools(Store::memory(), quorate_registry::builtin(), Pools::new(blocks, 1..=9).expect("pools"));
    bootstrap(&api).await.expect("the cluster's first objects");
    let client = local(&api);
    let services = quorate_api::GroupVersionResource::from_static("", "v1", "services");
    let object = service("web", json!({ "ipFamilyPolicy": "PreferDualStack" }));
    let both = client.create(&services, Some("default"), object).await.expect("created");
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert!(both["spec"]["clusterIPs"][1].as_str().is_some_and(|ip| ip.starts_with("fd00:5::")), "{both}");
    assert_eq!(allocated(&api).await, held(&[&both]));
    let single = json!({ "spec": { "ipFamilyPolicy": "SingleStack" } });
    let one = client.patch_merge(&services, Some("default"), "web", None, single).await.expect("patched");
    assert_eq!((held(&[&one]).len(), allocated(&api).await), (1, held(&[&one])));
}

async fn write(api: &Api, success: Vec<Op>) {
    let txn = Txn { compare: Vec::new(), success, failure: Vec::new() };
    api.store().propose(Command::Txn(txn)).await.expect("the store writes").outcome.expect("written");
}

fn delete(key: String) -> Op {
    Op::Delete(DeleteRequest { range: KeyRange::key(Bytes::from(key)), prev_kv: false })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_makes_services_and_allocations_agree() {
    let server = Server::start().await;
    let admin = server.admin();
    let lost = admin.post(SERVICES, &service("lost", json!({ "type": "NodePort" }))).await.expect(201);
    let good = admin.post(SERVICES, &service("good", json!({}))).await.expect(201);
    assert_eq!(repair_allocations(&server.api).await.expect("repaired"), []);
    let before = server.api.store().revision();
    assert_eq!(repair_allocations(&server.api).await.expect("repaired"), []);
    assert_eq!(server.api.store().revision(), before, "nothing to repair, nothing written");

    // An older version left these Services: without an address, without allocations, and an allocation without a
    // holder.
    let bare = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "bare", "namespace": "default", "uid": "u-bare", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }],
        },
        "status": { "loadBalancer": {} },
    });
    let twice = good["spec"]["clusterIP"].clone();
    let mut clash = bare.clone();
    clash["metadata"]["name"] = "clash".into();
    clash["metadata"]["uid"] = "u-clash".into();
    clash["spec"]["clusterIP"] = twice.clone();
    clash["spec"]["clusterIPs"] = json!([twice]);
    let put = |key: String, value: String| {
        Op::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
    };
    let leaked = json!({ "object": "/registry/core/services/default/gone", "uid": "x" }).to_string();
    let mut ops: Vec<Op> = held(&[&lost]).into_iter().map(|item| delete(format!("{ALLOCATIONS}{item}"))).collect();
    ops.push(put("/registry/core/services/default/bare".to_owned(), bare.to_string()));
    ops.push(put("/registry/core/services/default/clash".to_owned(), clash.to_string()));
    ops.push(put(format!("{ALLOCATIONS}addresses/10.96.9.9"), leaked));
    write(&server.api, ops).await;

    let mut findings = repair_allocations(&server.api).await.expect("repaired");
    findings.sort_by(|a, b| (&a.message, a.reason).cmp(&(&b.message, b.reason)));
    let found: BTreeSet<(&str, &str)> = findings
        .iter()
        .map(|finding| (finding.regarding["name"].as_str().unwrap_or_default(), finding.reason))
        .collect();
    let expected = [
        ("bare", "ClusterIPNotAllocated"),
        ("clash", "ClusterIPAlreadyAllocated"),
        ("lost", "ClusterIPNotAllocated"),
        ("lost", "PortNotAllocated"),
    ];
    assert_eq!(found, BTreeSet::from(expected));
    let bare = admin.get(&format!("{SERVICES}/bare")).await.expect(200);
    assert!(bare["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.")), "{bare}");
    assert_eq!(allocated(&server.api).await, held(&[&lost, &good, &bare]));
    // Deleting the second of two Services with one address does not release the first one's.
    admin.delete(&format!("{SERVICES}/clash"), &json!({})).await.expect(200);
    assert_eq!(allocated(&server.api).await, held(&[&lost, &good, &bare]));
    assert_eq!(repair_allocations(&server.api).await.expect("repaired"), []);
}
