use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().expect("a time")
}

/// Returns a quota whose status shows `used` of `hard`.
fn quota(hard: Value, used: Value, scopes: Value) -> ResourceQuota {
    let mut quota = json!({"metadata": {"name": "q"}, "spec": scopes, "status": {"hard": hard, "used": used}});
    quota["spec"]["hard"] = hard;
    serde_json::from_value(quota).expect("a quota")
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]})
}

fn of_pod(pod: &Pod) -> Subject<'_> {
    Subject { group: "", resource: "pods", object: Counted::Pod(pod) }
}

fn other<'a>(group: &'a str, resource: &'a str) -> Subject<'a> {
    Subject { group, resource, object: Counted::Other }
}

fn charged(quota: &ResourceQuota, subject: Subject<'_>) -> Result<Value, String> {
    charge(quota, subject, None, false, now()).map(|used| json!(used))
}

#[test]
fn a_pod_is_charged_for_all_that_it_asks_for() {
    let hard = json!({"pods": "5", "count/pods": "5", "cpu": "2", "requests.memory": "1Gi", "limits.cpu": "4",
        "requests.ephemeral-storage": "1Gi", "requests.example.com/gpu": "3", "requests.hugepages-2Mi": "8Mi",
        "services": "1"});
    let used = json!({"pods": "1", "count/pods": "1", "cpu": "500m", "requests.memory": "0", "limits.cpu": "1",
        "requests.ephemeral-storage": "0", "requests.example.com/gpu": "0", "requests.hugepages-2Mi": "0", "services": "1"});
    let amounts = json!({"cpu": "250m", "memory": "64Mi", "ephemeral-storage": "10Mi", "example.com/gpu": "2",
        "hugepages-2Mi": "4Mi"});
    let limits = json!({"cpu": "1500m", "memory": "64Mi"});
    let pod = pod(container(amounts, limits));
    let expected = json!({"pods": "2", "count/pods": "2", "cpu": "750m", "requests.memory": "64Mi", "limits.cpu": "2500m",
        "requests.ephemeral-storage": "10Mi", "requests.example.com/gpu": "2", "requests.hugepages-2Mi": "4Mi",
        "services": "1"});
    assert_eq!(charged(&quota(hard, used, json!({})), of_pod(&pod)), Ok(expected));
}

#[test]
fn a_quota_refuses_what_exceeds_it() {
    let limits = json!({"pods": "2", "requests.cpu": "1"});
    let one = pod(container(json!({"cpu": "600m"}), json!({})));
    let full = quota(limits.clone(), json!({"pods": "2", "requests.cpu": "0"}), json!({}));
    let refused = "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    assert_eq!(charged(&full, of_pod(&one)), Err(refused.to_owned()));
    let both = quota(limits.clone(), json!({"pods": "2", "requests.cpu": "500m"}), json!({}));
    let refused = "exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=2,requests.cpu=500m, \
                   limited: pods=2,requests.cpu=1";
    assert_eq!(charged(&both, of_pod(&one)), Err(refused.to_owned()));
    let silent = pod(json!({"containers": [{"name": "b"}, {"name": "a"}], "initContainers": [{"name": "i"}]}));
    let limited = quota(json!({"limits.cpu": "1", "cpu": "1"}), json!({"limits.cpu": "0", "cpu": "0"}), json!({}));
    let refused = "failed quota: q: must specify cpu for: a,b,i; limits.cpu for: a,b,i";
    assert_eq!(charged(&limited, of_pod(&silent)), Err(refused.to_owned()));
    let whole =
        pod(json!({"containers": [{"name": "a"}], "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}));
    assert_eq!(charged(&limited, of_pod(&whole)), Ok(json!({"limits.cpu": "1", "cpu": "1"})));
    let new = quota(limits, json!({"pods": "0"}), json!({}));
    let refused = "status unknown for quota: q, resources: pods,requests.cpu";
    assert_eq!(charged(&new, of_pod(&one)), Err(refused.to_owned()));
}

#[test]
fn objects_are_counted_by_each_of_their_names() {
    let cases = [
        (other("", "configmaps"), vec!["configmaps", "count/configmaps"]),
        (other("", "replicationcontrollers"), vec!["replicationcontrollers", "count/replicationcontrollers"]),
        (other("apps", "replicasets"), vec!["count/replicasets.apps"]),
        (other("example.com", "widgets"), vec!["count/widgets.example.com"]),
        (other("", "events"), vec![]),
    ];
    let names = [
        "configmaps",
        "count/configmaps",
        "replicationcontrollers",
        "count/replicationcontrollers",
        "replicasets",
        "count/replicasets.apps",
        "count/replicasets",
        "count/widgets.example.com",
        "count/events",
    ];
    for (subject, expected) in cases {
        let tracked: Vec<&str> =
            names.into_iter().filter(|name| tracks(subject.group, subject.resource, name)).collect();
        assert_eq!(tracked, expected, "{subject:?}");
    }
}

#[test]
fn services_are_charged_for_node_ports_and_load_balancers() {
    let hard = json!({"services": "9", "services.nodeports": "9", "services.loadbalancers": "9"});
    let zero = json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"});
    let quota = quota(hard, zero, json!({}));
    let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30000}]);
    for (spec, expected) in [
        (json!({"type": "ClusterIP", "ports": ports}), ["1", "0", "0"]),
        (json!({"type": "NodePort", "ports": ports}), ["1", "2", "0"]),
        (json!({"type": "LoadBalancer", "ports": ports}), ["1", "2", "1"]),
        (json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}), ["1", "1", "1"]),
    ] {
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a service");
        let used = charged(&quota, Subject { group: "", resource: "services", object: Counted::Service(&service) });
        let [services, ports, balancers] = expected;
        let wanted = json!({"services": services, "services.nodeports": ports, "services.loadbalancers": balancers});
        assert_eq!(used, Ok(wanted), "{spec}");
    }
}

#[test]
fn claims_are_charged_in_total_and_by_class() {
    let by_class = |class: &str, name: &str| format!("{class}.storageclass.storage.k8s.io/{name}");
    let names = [
        "persistentvolumeclaims".to_owned(),
        "requests.storage".to_owned(),
        by_class("gold", "persistentvolumeclaims"),
        by_class("gold", "requests.storage"),
        by_class("iron", "requests.storage"),
    ];
    let amounts = |value: &str| -> Value {
        names.iter().map(|name| (name.clone(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    };
    let quota = quota(amounts("10Gi"), amounts("0"), json!({}));
    let claim: PersistentVolumeClaim =
        serde_json::from_value(json!({"metadata": {}, "spec": {"storageClassName": "gold",
        "resources": {"requests": {"storage": "1Gi"}}}, "status": {"allocatedResources": {"storage": "2Gi"}}}))
        .expect("a claim");
    let subject = Subject { group: "", resource: "persistentvolumeclaims", object: Counted::Claim(&claim) };
    let used = charged(&quota, subject).expect("it fits");
    assert_eq!(names.map(|name| used[&name].as_str().expect("a quantity").to_owned()), ["1", "2Gi", "1", "2Gi", "0"]);
}

#[test]
fn an_update_is_charged_for_the_difference() {
    let quota = quota(json!({"requests.cpu": "2", "pods": "1"}), json!({"requests.cpu": "1", "pods": "1"}), json!({}));
    let [small, large, huge] = ["1", "1500m", "3"].map(|cpu| pod(container(json!({"cpu": cpu}), json!({}))));
    let update =
        |new: &Pod, old: &Pod, is_status| charge(&quota, of_pod(new), Some(Counted::Pod(old)), is_status, now());
    assert_eq!(
        update(&large, &small, false).map(|used| json!(used)),
        Ok(json!({"requests.cpu": "1500m", "pods": "1"}))
    );
    assert_eq!(update(&small, &large, false), Ok(None), "the controller finds what is given back");
    let refused = "exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=1, limited: requests.cpu=2";
    assert_eq!(update(&huge, &small, false), Err(refused.to_owned()));
    assert!(update(&huge, &small, true).is_ok_and(|used| used.is_some()), "a status reports what is");
}

#[test]
fn scopes_select_pods() {
    let plain = json!({"containers": [{"name": "c"}]});
    let with = |field: &str, value: Value| {
        let mut spec = plain.clone();
        spec[field] = value;
        spec
    };
    let burstable = container(json!({"cpu": "1"}), json!({}));
    let high = with("priorityClassName", json!("high"));
    let term = json!({"topologyKey": "z", "namespaceSelector": {}});
    let crossing = with(
        "affinity",
        json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "podAffinityTerm": term}]}}),
    );
    let ending = with("activeDeadlineSeconds", json!(5));
    let scope = |name: &str| json!({"scopes": [name]});
    let select = |operator: &str, values: &[&str]| {
        json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let cases = [
        (scope("Terminating"), &ending, &plain),
        (scope("NotTerminating"), &plain, &ending),
        (scope("BestEffort"), &plain, &burstable),
        (scope("NotBestEffort"), &burstable, &plain),
        (scope("CrossNamespacePodAffinity"), &crossing, &plain),
        (scope("PriorityClass"), &high, &plain),
        (select("Exists", &[]), &high, &plain),
        (select("DoesNotExist", &[]), &plain, &high),
        (select("In", &["high", "low"]), &high, &plain),
        (select("NotIn", &["high"]), &plain, &high),
    ];
    for (scopes, inside, outside) in cases {
        let quota = quota(json!({"pods": "1"}), json!({"pods": "0"}), scopes.clone());
        let [inside, outside] = [inside, outside].map(|spec| pod(spec.clone()));
        assert_eq!(charged(&quota, of_pod(&inside)), Ok(json!({"pods": "1"})), "{scopes}");
        assert_eq!(charged(&quota, of_pod(&outside)), Ok(Value::Null), "{scopes}");
        assert_eq!(charged(&quota, other("", "configmaps")), Ok(Value::Null), "only pods have these scopes");
    }
}

#[test]
fn recalculation_counts_what_is_there() {
    let hard = json!({"pods": "5", "count/pods": "5", "requests.cpu": "4", "configmaps": "5", "count/jobs.batch": "3",
        "example.com/own": "1"});
    let fresh: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).expect("a quota");
    assert!(is_unmeasured(&fresh));
    let running = pod(container(json!({"cpu": "1500m"}), json!({})));
    let [mut ended, mut overdue] = [running.clone(), running.clone()];
    ended.status = serde_json::from_value(json!({"phase": "Succeeded"})).expect("a status");
    overdue.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:10Z")).expect("a time");
    overdue.metadata.deletion_grace_period_seconds = Some(30);
    let objects = [of_pod(&running), of_pod(&ended), of_pod(&overdue), other("", "configmaps"), other("", "events")];
    let status = recalculate(&fresh, objects.into_iter(), now()).expect("a new status");
    let used =
        json!({"pods": "1", "count/pods": "3", "requests.cpu": "1500m", "configmaps": "1", "count/jobs.batch": "0"});
    assert_eq!((json!(status.hard), json!(status.used)), (hard, used));
    let measured = ResourceQuota { status: Some(status), ..fresh };
    assert_eq!(recalculate(&measured, objects.into_iter(), now()), None, "it is up to date");
    assert!(!is_unmeasured(&measured));
    let fewer = recalculate(&measured, objects[..1].iter().copied(), now()).and_then(|status| status.used);
    assert_eq!(fewer.expect("less is used")["count/pods"].0, "1");
    let mut raised = measured;
    raised
        .spec
        .as_mut()
        .expect("a spec")
        .hard
        .as_mut()
        .expect("limits")
        .insert("pods".to_owned(), Amount("9".to_owned()));
    assert!(is_unmeasured(&raised));
}

#[test]
fn only_changes_of_usage_need_a_recalculation() {
    let running = pod(container(json!({"cpu": "1"}), json!({})));
    let [mut bound, mut ended] = [running.clone(), running.clone()];
    bound.spec.as_mut().expect("a spec").node_name = Some("n".to_owned());
    ended.status = serde_json::from_value(json!({"phase": "Failed"})).expect("a status");
    let changes = |new: &Pod| may_change(Counted::Pod(&running), Counted::Pod(new));
    assert!(!changes(&bound) && changes(&ended));
    assert!(changes(&pod(container(json!({"cpu": "2"}), json!({})))));
}
