//! Tests of Services through their strategy, as the pipeline calls it.

use serde_json::{Value, json};

use super::pools::ServicePools;
use crate::kinds::tests::{cells, created, errors_of, strategy};
use crate::pool::{Claim, Item, Pooled, Pools, Refusal, Slot, Unmet};
use crate::value::items;

const BORN: &str = "2026-01-01T00:00:00Z";

fn with(mut object: Value, changes: &Value) -> Value {
    quorate_api::patch::merge::apply(&mut object, changes);
    object
}

fn web() -> Value {
    json!({
        "metadata": {"name": "web", "creationTimestamp": BORN},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

/// Returns a stored service with this spec on top of [`web`]'s, whose claims get the items in order.
fn stored(spec: &Value, items: &[&str]) -> Value {
    let mut object = created("Service", &with(web(), &json!({ "spec": spec })));
    assert_eq!(ServicePools.fit(&mut object, None, &Pools::default()), []);
    let claims = ServicePools.claims(&object, None);
    assert_eq!(claims.len(), items.len(), "{claims:?}");
    for (claim, item) in claims.iter().zip(items) {
        ServicePools.assign(&mut object, claim, item_of(item));
    }
    object
}

fn item_of(text: &str) -> Item {
    text.parse().map(Item::Port).or_else(|_| text.parse().map(Item::Address)).expect("an item")
}

/// Returns a stored service after a merge patch, and the errors that the patch leads to.
fn patched(old: &Value, changes: &Value) -> (Value, Vec<String>) {
    let strategy = strategy("Service");
    let mut new = with(old.clone(), changes);
    strategy.default(&mut new);
    strategy.prepare_update(&mut new, old);
    let mut errors = ServicePools.fit(&mut new, Some(old), &Pools::default());
    errors.extend(strategy.validate(&new));
    errors.extend(strategy.validate_update(&new, old));
    (new, errors.iter().map(ToString::to_string).collect())
}

fn wanted(claims: &[Claim]) -> Vec<Option<String>> {
    claims.iter().map(|claim| claim.wanted.map(|item| item.to_string())).collect()
}

#[test]
fn a_service_gets_its_addresses_and_keeps_them() {
    let object = stored(&json!({}), &["10.96.0.7"]);
    assert_eq!(
        object["spec"],
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    let without = json!({"spec": {"clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null}});
    let (replaced, errors) = patched(&object, &without);
    assert_eq!((&replaced, errors.len()), (&object, 0), "{errors:?}");
    assert_eq!(ServicePools.claims(&replaced, Some(&object)), []);
    for (changes, expected) in [
        (
            json!({"clusterIP": "10.96.0.8"}),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set",
        ),
        (
            json!({"clusterIP": "192.0.2.53"}),
            "spec.clusterIPs[0]: Invalid value: [\"192.0.2.53\"]: may not change once set",
        ),
        (json!({"clusterIP": "None"}), "spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"),
        (
            json!({"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.7"]}),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set",
        ),
    ] {
        assert_eq!(patched(&object, &json!({ "spec": changes })).1, [expected]);
    }
    let headless = stored(&json!({"clusterIP": "None"}), &[]);
    assert_eq!(
        (&headless["spec"]["clusterIPs"], &headless["spec"]["ipFamilies"]),
        (&json!(["None"]), &json!(["IPv4"]))
    );
    let (_, errors) = patched(&headless, &json!({"spec": {"clusterIP": "10.96.0.8"}}));
    assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]);
}

#[test]
fn fields_that_a_new_type_cannot_have_are_dropped() {
    let node_port = stored(&json!({"type": "NodePort", "sessionAffinity": "ClientIP"}), &["10.96.0.7", "30080"]);
    assert_eq!(node_port["spec"]["externalTrafficPolicy"], "Cluster");
    let (cluster_ip, errors) = patched(&node_port, &json!({"spec": {"type": "ClusterIP"}}));
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        (cluster_ip["spec"].get("externalTrafficPolicy"), cluster_ip["spec"]["ports"][0].get("nodePort")),
        (None, None)
    );
    assert_eq!(cluster_ip["spec"]["clusterIP"], "10.96.0.7");
    assert_eq!(ServicePools.holds(&cluster_ip), [item_of("10.96.0.7")]);

    let (no_affinity, errors) = patched(&node_port, &json!({"spec": {"sessionAffinity": "None"}}));
    assert_eq!((no_affinity["spec"].get("sessionAffinityConfig"), errors.len()), (None, 0));

    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let (external, errors) = patched(&cluster_ip, &external);
    assert_eq!(errors, [""; 0]);
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(external["spec"].get(field), None, "{field}");
    }
    let (back, errors) = patched(&external, &json!({"spec": {"type": "ClusterIP", "externalName": null}}));
    assert_eq!((errors.len(), wanted(&ServicePools.claims(&back, Some(&external)))), (0, vec![None]));

    let balanced =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "example.com/a"});
    let mut balanced = stored(&balanced, &["10.96.0.7", "30080", "30081"]);
    balanced["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    assert_eq!(balanced["spec"]["healthCheckNodePort"], 30081);
    let mut defaulted = balanced.clone();
    strategy("Service").default(&mut defaulted);
    assert_eq!(defaulted["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]));
    let (plain, errors) = patched(&balanced, &json!({"spec": {"type": "ClusterIP"}}));
    assert_eq!(errors, [""; 0]);
    for field in ["healthCheckNodePort", "allocateLoadBalancerNodePorts", "loadBalancerClass", "externalTrafficPolicy"]
    {
        assert_eq!(plain["spec"].get(field), None, "{field}");
    }
    assert_eq!(plain["status"], json!({"loadBalancer": {}}));
    let (_, errors) = patched(&balanced, &json!({"spec": {"healthCheckNodePort": 30082}}));
    assert_eq!(errors, ["spec.healthCheckNodePort: Invalid value: 30082: field is immutable"]);
    let (_, errors) = patched(&balanced, &json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": "Cluster"}}));
    assert_eq!(
        errors,
        ["spec.externalTrafficPolicy: Invalid value: \"Cluster\": may only be set for externally-accessible services"],
        "the client has asked for it"
    );
}

#[test]
fn node_ports_follow_the_names_of_their_ports() {
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let object = stored(&json!({"type": "NodePort", "ports": ports}), &["10.96.0.7", "30080", "30081"]);
    let numbers = |object: &Value| {
        let ports = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
        ports.iter().map(|port| port["nodePort"].as_i64().unwrap_or_default()).collect::<Vec<_>>()
    };
    let ports = json!([{"name": "b", "port": 82}, {"name": "c", "port": 80}]);
    let (moved, errors) = patched(&object, &json!({"spec": {"ports": ports}}));
    assert_eq!((numbers(&moved), errors.len()), (vec![30081, 0], 0));
    assert_eq!(wanted(&ServicePools.claims(&moved, Some(&object))), [None]);
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30080}]);
    let (taken, _) = patched(&object, &json!({"spec": {"ports": ports}}));
    assert_eq!(numbers(&taken), [0, 30080], "a number that moved to another port is not kept for this one");

    let both = json!([{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    let shared = stored(&json!({"type": "NodePort", "ports": both}), &["10.96.0.7", "30053"]);
    assert_eq!(numbers(&shared), [30053, 30053], "one number for both protocols");
    assert_eq!(ServicePools.holds(&shared), [item_of("10.96.0.7"), item_of("30053")]);
    let asked = json!([{"name": "t", "port": 53, "nodePort": 30053}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    assert_eq!(numbers(&stored(&json!({"type": "NodePort", "ports": asked}), &["10.96.0.7", "30053"])), [30053, 30053]);
    let quiet = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    assert_eq!(numbers(&stored(&quiet, &["10.96.0.7"])), [0]);
}

#[test]
fn families_follow_those_of_the_cluster() {
    let single = Pools::default();
    let dual = Pools::new(
        vec!["10.96.0.0/16".parse().expect("a block"), "fd00:96::/112".parse().expect("a block")],
        30_000..=32_767,
    )
    .expect("pools");
    let fitted = |spec: Value, pools: &Pools| {
        let mut object = created("Service", &with(web(), &json!({ "spec": spec })));
        let errors: Vec<String> = ServicePools.fit(&mut object, None, pools).iter().map(ToString::to_string).collect();
        (object["spec"]["ipFamilies"].clone(), errors, wanted(&ServicePools.claims(&object, None)).len())
    };
    let v4 = json!(["IPv4"]);
    assert_eq!(fitted(json!({}), &dual), (v4.clone(), vec![], 1));
    assert_eq!(fitted(json!({"ipFamilyPolicy": "PreferDualStack"}), &single), (v4, vec![], 1));
    assert_eq!(fitted(json!({"ipFamilyPolicy": "PreferDualStack"}), &dual), (json!(["IPv4", "IPv6"]), vec![], 2));
    assert_eq!(
        fitted(json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), &dual),
        (json!(["IPv6", "IPv4"]), vec![], 2)
    );
    assert_eq!(fitted(json!({"clusterIP": "fd00:96::5"}), &dual).0, json!(["IPv6"]));
    assert_eq!(fitted(json!({"clusterIP": "None", "selector": null}), &single).0, json!(["IPv4", "IPv6"]));
    for (spec, pools, expected) in [
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            &single,
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            &single,
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"clusterIP": "fd00:96::5"}),
            &single,
            "spec.clusterIPs[0]: Invalid value: [\"fd00:96::5\"]: IPv6 is not configured on this cluster",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            &dual,
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        (
            json!({"clusterIP": "10.96.0.5", "ipFamilies": ["IPv6"]}),
            &dual,
            "spec.clusterIPs[0]: Invalid value: \"10.96.0.5\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({"clusterIP": "10.97.0.5"}),
            &single,
            "spec.clusterIPs: Invalid value: [\"10.97.0.5\"]: failed to allocate IP 10.97.0.5: the provided IP (10.97.0.5) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
    ] {
        assert_eq!(fitted(spec, pools).1, [expected]);
    }
}

#[test]
fn a_second_family_follows_the_policy() {
    let dual = Pools::new(
        vec!["10.96.0.0/16".parse().expect("a block"), "fd00:96::/112".parse().expect("a block")],
        30_000..=32_767,
    )
    .expect("pools");
    let old = stored(&json!({}), &["10.96.0.7"]);
    let update = |old: &Value, changes: Value| {
        let mut new = with(old.clone(), &json!({ "spec": changes }));
        strategy("Service").default(&mut new);
        strategy("Service").prepare_update(&mut new, old);
        let mut errors = ServicePools.fit(&mut new, Some(old), &dual);
        errors.extend(strategy("Service").validate_update(&new, old));
        (new, errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (mut both, errors) = update(&old, json!({"ipFamilyPolicy": "PreferDualStack"}));
    let claims = ServicePools.claims(&both, Some(&old));
    assert_eq!((errors.len(), claims.len(), claims[0].slots.as_slice()), (0, 1, &[Slot::ClusterIp(1)][..]));
    ServicePools.assign(&mut both, &claims[0], item_of("fd00:96::7"));
    assert_eq!(both["spec"]["clusterIPs"], json!(["10.96.0.7", "fd00:96::7"]));
    let (_, errors) = update(&both, json!({"ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.7"]}));
    assert_eq!(errors.len(), 3, "{errors:?}");
    let (one, errors) = update(&both, json!({"ipFamilyPolicy": "SingleStack"}));
    assert_eq!((errors.len(), &one["spec"]["clusterIPs"]), (0, &json!(["10.96.0.7"])));
    assert_eq!(ServicePools.holds(&one), [item_of("10.96.0.7")]);
}

#[test]
fn unavailable_items_are_refused_in_kubernetes_words() {
    let object = json!({"spec": {"clusterIPs": ["10.96.0.5"]}});
    let claim = |slot: Slot, wanted: Option<&str>| Claim {
        pool: crate::pool::PoolName::Ports,
        wanted: wanted.map(item_of),
        slots: vec![slot],
    };
    for (claim, unmet, expected) in [
        (
            claim(Slot::ClusterIp(0), Some("10.96.0.5")),
            Unmet::Taken,
            "spec.clusterIPs: Invalid value: [\"10.96.0.5\"]: failed to allocate IP 10.96.0.5: provided IP is already allocated",
        ),
        (claim(Slot::ClusterIp(0), None), Unmet::Full, "failed to allocate a serviceIP: range is full"),
        (
            claim(Slot::NodePort(1), Some("30080")),
            Unmet::Taken,
            "spec.ports[1].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (claim(Slot::NodePort(1), None), Unmet::Full, "failed to allocate a nodePort: range is full"),
    ] {
        let refusal = match ServicePools.refusal(&object, &claim, unmet) {
            Refusal::Invalid(error) => error.to_string(),
            Refusal::Internal(message) => message,
        };
        assert_eq!(refusal, expected);
    }
}

#[test]
fn services_are_checked_and_shown() {
    let service = with(web(), &json!({"spec": {"selector": null}}));
    for (spec, expected) in [
        (json!({"ports": []}), vec!["spec.ports: Required value"]),
        (json!({"ports": [], "clusterIP": "None"}), vec![]),
        (
            json!({"ports": [{"port": 0}]}),
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (json!({"ports": [{"name": "a", "port": 1}, {"port": 2}]}), vec!["spec.ports[1].name: Required value"]),
        (
            json!({"type": "Magic"}),
            vec![
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
        (
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30_080}, {"name": "b", "port": 81, "nodePort": 30_080}]}),
            vec!["spec.ports[1].nodePort: Duplicate value: 30080"],
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30_080}]}),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            json!({"externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["10.0.0.0/8"], "healthCheckNodePort": 31_000}),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ],
        ),
        (json!({"externalTrafficPolicy": "Local", "externalIPs": ["1.2.3.4"]}), vec![]),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90_000}}}),
            vec![
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400",
            ],
        ),
    ] {
        assert_eq!(errors_of("Service", &with(service.clone(), &json!({ "spec": spec }))), expected, "{spec}");
    }
    let shown = |patch: Value| cells("Service", &with(created("Service", &service), &json!({ "spec": patch })));
    assert_eq!(
        shown(json!({"clusterIP": "10.0.0.7"})),
        ["web", "ClusterIP", "10.0.0.7", "<none>", "80/TCP", "60m", "<none>"]
    );
    let ports = json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    assert_eq!(
        shown(json!({"type": "LoadBalancer", "ports": ports, "selector": {"a": "b", "c": "d"}})),
        ["web", "LoadBalancer", "<none>", "<pending>", "80:30080/TCP,53/UDP", "60m", "a=b,c=d"]
    );
}

#[test]
fn node_ports_outside_of_the_range_are_refused() {
    for number in [99_999, 80, -1] {
        let ports = json!([{"port": 80, "nodePort": number}]);
        let mut object = created("Service", &with(web(), &json!({"spec": {"type": "NodePort", "ports": ports}})));
        let errors = ServicePools.fit(&mut object, None, &Pools::default());
        let expected = format!(
            "spec.ports[0].nodePort: Invalid value: {number}: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn an_invalid_address_does_not_hide_other_errors() {
    let spec = json!({"clusterIP": "10.096.0.1", "clusterIPs": ["10.096.0.1", "10.96.0.2"],
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "type": "ClusterIP"});
    let errors = errors_of("Service", &with(web(), &json!({ "spec": spec })));
    let has = |part: &str| errors.iter().any(|error| error.contains(part));
    assert!(has("spec.clusterIPs[0]") && has("spec.clusterIPs[1]"), "{errors:?}");
    assert!(has("expected an IPv6 value as indicated by `ipFamilies[1]`") && !has("expected an IPv4"), "{errors:?}");
}

#[test]
fn a_condition_needs_no_time() {
    let stored = stored(&json!({}), &["10.96.0.7"]);
    let untimed = json!({"type": "Ready", "status": "True", "reason": "Made", "message": ""});
    let timed = json!({"lastTransitionTime": BORN, "type": "Timed", "status": "True", "reason": "Made", "message": ""});
    let mut object = stored.clone();
    object["status"] = json!({"conditions": [untimed, timed]});
    strategy("Service").default(&mut object);
    let times: Vec<&Value> = items(&object["status"]["conditions"]).iter().map(|c| &c["lastTransitionTime"]).collect();
    assert_eq!(times, ["0001-01-01T00:00:00Z", BORN]);
    assert_eq!(strategy("Service").validate_status_update(&object, &stored).len(), 0);
}
