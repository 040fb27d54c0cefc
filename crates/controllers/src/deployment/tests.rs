use std::cell::RefCell;
use std::time::Duration;

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::simulation::{Chance, Cluster, in_default, render};

const WEB: &str = "apps/deployments/default/web";
const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn deployment(replicas: i32, strategy: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "annotations": {"team": "blue",
            "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
            "revisionHistoryLimit": 3, "progressDeadlineSeconds": 60,
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}})
}

fn rolling(max_surge: Value, max_unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": max_surge, "maxUnavailable": max_unavailable}})
}

fn set_image(cluster: &mut Cluster, image: &str) {
    cluster.patch(WEB, &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}));
}

fn scale(cluster: &mut Cluster, replicas: i32) {
    cluster.patch(WEB, &json!({"spec": {"replicas": replicas}}));
}

fn with_nodes(seed: u64) -> Cluster {
    let mut cluster = Cluster::with_seed(seed);
    for node in NODES {
        cluster.add_node(node);
    }
    cluster
}

fn rolled_out(replicas: i32, strategy: &Value) -> Cluster {
    let mut cluster = with_nodes(7);
    cluster.create(deployment(replicas, strategy));
    cluster.run(&NODES, 1, |_| {});
    cluster
}

fn condition(cluster: &Cluster, type_: &str) -> (String, String) {
    let deployment = cluster.cache.deployments().get("default", "web").expect("there");
    let status = deployment.status.clone().expect("a status");
    let conditions = status.conditions.expect("conditions");
    let found = conditions.into_iter().find(|condition| condition.type_ == type_).expect("the condition");
    (found.status, found.reason.expect("a reason"))
}

/// Returns the desired and available pods of each set, oldest revision first.
fn sets(cluster: &Cluster) -> Vec<(String, i32, i32)> {
    let mut sets: Vec<_> = cluster.cache.replica_sets().iter().collect();
    sets.sort_by_key(|set| {
        let annotations = set.metadata.annotations.clone().unwrap_or_default();
        annotations[super::revision::REVISION].parse::<i32>().expect("a number")
    });
    let row = |set: &&std::sync::Arc<super::ReplicaSet>| {
        let annotations = set.metadata.annotations.clone().unwrap_or_default();
        let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).expect("a number");
        (annotations[super::revision::REVISION].clone(), replicas, available)
    };
    sets.iter().map(row).collect()
}

#[test]
fn a_new_deployment_gets_its_first_replica_set() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(3, &rolling(json!("25%"), json!("25%"))));
    assert_snapshot!("first_replica_set", render(&cluster.plan("deployment", &in_default("web"))));
    cluster.settle();
    let created = cluster.events.iter().filter(|event| event.starts_with("SuccessfulCreate")).count();
    assert_eq!(created, 3, "{:?}", cluster.events);
    assert!(
        cluster
            .events
            .iter()
            .any(|e| e.starts_with("ScalingReplicaSet: Scaled up replica set web-") && e.ends_with(" from 0 to 3"))
    );
    cluster.assert_at_rest();
}

#[test]
fn a_rollout_ends_complete_with_one_active_set() {
    let mut cluster = rolled_out(4, &rolling(json!("25%"), json!("25%")));
    assert_eq!(sets(&cluster), [("1".to_owned(), 4, 4)]);
    assert_eq!(condition(&cluster, "Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    assert_eq!(condition(&cluster, "Available"), ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));

    set_image(&mut cluster, "web:2");
    assert_snapshot!("second_revision", render(&cluster.plan("deployment", &in_default("web"))));
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(sets(&cluster), [("1".to_owned(), 0, 0), ("2".to_owned(), 4, 4)]);
    let stored = cluster.get(WEB).expect("there");
    assert_eq!(stored["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let set = cluster.names("replicasets").into_iter().map(str::to_owned).collect::<Vec<_>>();
    for name in set {
        let set = cluster.get(&format!("apps/replicasets/default/{name}")).expect("there");
        assert_eq!(set["metadata"]["annotations"]["team"], "blue");
        assert!(set["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].is_null());
    }
    cluster.assert_at_rest();
}

#[test]
fn an_undo_brings_the_old_set_back_as_the_newest_revision() {
    let mut cluster = rolled_out(3, &rolling(json!(1), json!(0)));
    let first = cluster.names("replicasets")[0].to_owned();
    set_image(&mut cluster, "web:2");
    cluster.run(&NODES, 1, |_| {});
    set_image(&mut cluster, "web:1");
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(sets(&cluster), [("2".to_owned(), 0, 0), ("3".to_owned(), 3, 3)]);
    let set = cluster.get(&format!("apps/replicasets/default/{first}")).expect("still there");
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    cluster.assert_at_rest();
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut cluster = rolled_out(1, &rolling(json!(1), json!(0)));
    for version in 2..=7 {
        set_image(&mut cluster, &format!("web:{version}"));
        cluster.run(&NODES, 1, |_| {});
    }
    let revisions: Vec<String> = sets(&cluster).into_iter().map(|(revision, _, _)| revision).collect();
    assert_eq!(revisions, ["4", "5", "6", "7"]);
    cluster.assert_at_rest();
}

#[test]
fn recreate_starts_nothing_before_the_last_old_pod_is_gone() {
    let mut cluster = rolled_out(3, &json!({"type": "Recreate"}));
    set_image(&mut cluster, "web:2");
    cluster.run(&NODES, 2, |cluster| {
        let images: std::collections::BTreeSet<String> = cluster
            .cache
            .pods()
            .iter()
            .map(|pod| pod.spec.clone().expect("a spec").containers[0].image.clone().expect("an image"))
            .collect();
        assert!(images.len() <= 1, "{images:?}");
    });
    assert_eq!(sets(&cluster), [("1".to_owned(), 0, 0), ("2".to_owned(), 3, 3)]);
    cluster.assert_at_rest();
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut cluster = rolled_out(2, &rolling(json!(1), json!(0)));
    cluster.patch(WEB, &json!({"spec": {"paused": true}}));
    set_image(&mut cluster, "web:2");
    scale(&mut cluster, 5);
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(sets(&cluster), [("1".to_owned(), 5, 5)]);
    assert_eq!(condition(&cluster, "Progressing"), ("Unknown".to_owned(), "DeploymentPaused".to_owned()));
    cluster.assert_at_rest();
    cluster.patch(WEB, &json!({"spec": {"paused": null}}));
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(sets(&cluster), [("1".to_owned(), 0, 0), ("2".to_owned(), 5, 5)]);
    cluster.assert_at_rest();
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
    let mut cluster = rolled_out(10, &rolling(json!(3), json!(2)));
    set_image(&mut cluster, "web:2");
    // No new pod ever becomes ready, so the rollout stops at its limits.
    cluster.settle();
    assert_eq!(sets(&cluster), [("1".to_owned(), 8, 8), ("2".to_owned(), 5, 0)]);
    // From the Kubernetes documentation of proportional scaling: 10 to 15 gives 11 and 7.
    scale(&mut cluster, 15);
    cluster.settle();
    let sizes: Vec<i32> = sets(&cluster).into_iter().map(|(_, replicas, _)| replicas).collect();
    assert_eq!(sizes, [11, 7]);
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(sets(&cluster), [("1".to_owned(), 0, 0), ("2".to_owned(), 15, 15)]);
    cluster.assert_at_rest();
}

#[test]
fn a_rollout_without_progress_is_reported_and_recovers() {
    let mut cluster = rolled_out(2, &rolling(json!(1), json!(0)));
    set_image(&mut cluster, "web:broken");
    cluster.settle();
    assert_eq!(condition(&cluster, "Progressing").1, "ReplicaSetUpdated");
    cluster.advance(Duration::from_secs(30));
    assert_eq!(condition(&cluster, "Progressing").1, "ReplicaSetUpdated");
    cluster.advance(Duration::from_secs(40));
    assert_eq!(condition(&cluster, "Progressing"), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
    cluster.assert_at_rest();
    set_image(&mut cluster, "web:1");
    cluster.settle();
    assert_ne!(condition(&cluster, "Progressing").1, "ProgressDeadlineExceeded");
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(condition(&cluster, "Progressing").1, "NewReplicaSetAvailable");
    cluster.assert_at_rest();
}

#[test]
fn a_refused_replica_set_is_reported() {
    let mut cluster = with_nodes(7);
    cluster.refuses = Box::new(|_, target| (target.resource.resource == "replicasets").then_some("no"));
    cluster.create(deployment(2, &rolling(json!(1), json!(0))));
    cluster.advance(Duration::from_secs(1));
    assert_eq!(condition(&cluster, "Progressing"), ("False".to_owned(), "ReplicaSetCreateError".to_owned()));
    let event = cluster.events.iter().find(|event| event.starts_with("ReplicaSetCreateError: ")).expect("an event");
    assert!(event.starts_with("ReplicaSetCreateError: Failed to create new replica set \"web-"), "{event}");
    assert!(event.ends_with("is forbidden: no"), "{event}");
    let writes = cluster.writes;
    cluster.advance(Duration::from_secs(200));
    assert_eq!(cluster.writes, writes, "reported once");

    cluster.refuses = Box::new(|_, _| None);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(condition(&cluster, "Progressing").0, "True");
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(condition(&cluster, "Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    cluster.assert_at_rest();
}

#[test]
fn pod_failures_are_reported_on_the_deployment() {
    let mut cluster = with_nodes(7);
    cluster.refuses = Box::new(|_, target| (target.resource.resource == "pods").then_some("exceeded quota"));
    cluster.create(deployment(2, &rolling(json!(1), json!(0))));
    cluster.advance(Duration::from_secs(1));
    assert_eq!(condition(&cluster, "ReplicaFailure"), ("True".to_owned(), "FailedCreate".to_owned()));
    cluster.refuses = Box::new(|_, _| None);
    cluster.advance(Duration::from_secs(1));
    cluster.run(&NODES, 1, |_| {});
    let conditions = cluster.get(WEB).expect("there")["status"]["conditions"].to_string();
    assert!(!conditions.contains("ReplicaFailure"), "{conditions}");
    cluster.assert_at_rest();
}

#[test]
fn pods_count_before_their_set_reports_them() {
    let mut cluster = rolled_out(1, &rolling(json!(1), json!(0)));
    let set = cluster.names("replicasets")[0].to_owned();
    // The set has one surplus pod that its status does not count yet.
    let pod = format!("pods/default/{}", cluster.names("pods")[0]);
    let mut extra = cluster.get(&pod).expect("there");
    extra["metadata"]["name"] = json!("extra");
    cluster.create(extra);
    set_image(&mut cluster, "web:2");
    let plan = render(&cluster.plan("deployment", &in_default("web")));
    assert!(plan.contains("create replicasets.apps web-") && plan.contains("\"replicas\": 0"), "{plan}");
    assert_eq!(cluster.get(&format!("apps/replicasets/default/{set}")).expect("there")["status"]["replicas"], 1);
    // Its deletion does not change the set's status, but lets the rollout continue.
    cluster.run(&NODES, 1, |_| {});
    assert_eq!(sets(&cluster), [("1".to_owned(), 0, 0), ("2".to_owned(), 1, 1)]);
    cluster.assert_at_rest();
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let mut cluster = Cluster::new();
    cluster.create(deployment(1, &rolling(json!(1), json!(0))));
    cluster.settle();
    let name = cluster.names("replicasets")[0].to_owned();
    let mut cluster = Cluster::new();
    cluster.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "other"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "other"}},
            "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": []}}}}));
    cluster.create(deployment(1, &rolling(json!(1), json!(0))));
    cluster.settle();
    assert_eq!(cluster.names("replicasets").len(), 2);
    assert_eq!(cluster.get(WEB).expect("there")["status"]["collisionCount"], 1);
    cluster.assert_at_rest();
}

#[test]
fn sets_are_adopted_and_released_by_labels() {
    let mut cluster = rolled_out(1, &rolling(json!(1), json!(0)));
    let set = format!("apps/replicasets/default/{}", cluster.names("replicasets")[0]);
    cluster.patch(&set, &json!({"metadata": {"ownerReferences": null}}));
    cluster.settle();
    assert_eq!(cluster.get(&set).expect("there")["metadata"]["ownerReferences"][0]["name"], "web");
    cluster.patch(&set, &json!({"metadata": {"labels": {"app": "quarantined"}}}));
    cluster.run(&NODES, 1, |_| {});
    assert!(cluster.get(&set).expect("there")["metadata"]["ownerReferences"].is_null());
    assert_eq!(cluster.names("replicasets").len(), 2);
    cluster.assert_at_rest();
}

#[derive(Clone, Debug)]
enum Step {
    Image(u8),
    Scale(i32),
    Pause(bool),
    /// Number of turns that controllers and nodes get.
    Turns(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Image),
        (0..9_i32).prop_map(Step::Scale),
        any::<bool>().prop_map(Step::Pause),
        (1..6_u8).prop_map(Step::Turns),
    ]
}

fn strategy() -> impl Strategy<Value = Value> {
    let amount = || prop_oneof![(0..4_i32).prop_map(|n| json!(n)), (0..60_u8).prop_map(|n| json!(format!("{n}%")))];
    prop_oneof![
        4 => (amount(), amount()).prop_map(|(surge, unavailable)| rolling(surge, unavailable)),
        1 => Just(json!({"type": "Recreate"})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Any changes in any order end with exactly the pods of the last template, and no controller has work left.
    #[test]
    fn any_sequence_of_changes_converges(
        seed: u64,
        strategy in strategy(),
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let mut cluster = with_nodes(seed);
        cluster.create(deployment(3, &strategy));
        let mut replicas = 3;
        for step in steps {
            let before = cluster.get(WEB).expect("there");
            match step {
                Step::Image(image) => {
                    let image = format!("web:{image}");
                    if before["spec"]["template"]["spec"]["containers"][0]["image"] != json!(image) {
                        set_image(&mut cluster, &image);
                    }
                }
                Step::Scale(to) => {
                    replicas = to;
                    if before["spec"]["replicas"] != json!(to) {
                        scale(&mut cluster, to);
                    }
                }
                Step::Pause(paused) => {
                    if before["spec"]["paused"].as_bool().unwrap_or(false) != paused {
                        cluster.patch(WEB, &json!({"spec": {"paused": paused}}));
                    }
                }
                Step::Turns(turns) => {
                    for _ in 0..turns {
                        cluster.settle();
                        cluster.now += Duration::from_secs(1);
                        cluster.run_pods(&NODES, 3);
                    }
                }
            }
        }
        if cluster.get(WEB).expect("there")["spec"]["paused"] == json!(true) {
            cluster.patch(WEB, &json!({"spec": {"paused": false}}));
        }
        cluster.run(&NODES, 2, |_| {});
        cluster.assert_at_rest();

        let stored = cluster.get(WEB).expect("there");
        let count = |field: &str| stored["status"][field].as_i64().unwrap_or(0);
        for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            prop_assert_eq!(count(field), i64::from(replicas), "{}", field);
        }
        let image = &stored["spec"]["template"]["spec"]["containers"][0]["image"];
        let pods: Vec<_> = cluster.cache.pods().iter().collect();
        prop_assert_eq!(pods.len(), usize::try_from(replicas).expect("small"));
        for pod in pods {
            let of_pod = pod.spec.clone().expect("a spec").containers[0].image.clone();
            prop_assert_eq!(of_pod.as_deref(), image.as_str());
        }
        prop_assert!(sets(&cluster).len() <= 4, "{:?}", sets(&cluster));
        prop_assert!(sets(&cluster).iter().filter(|(_, replicas, _)| *replicas > 0).count() <= 1);
        prop_assert_eq!(condition(&cluster, "Progressing").1, "NewReplicaSetAvailable");
    }

    /// Randomly refused writes delay a rollout, which stays within its limits. Once writes are admitted again, no
    /// failure remains in any status.
    #[test]
    fn rollouts_recover_from_refused_writes(seed: u64, images in prop::collection::vec(2..5_u8, 1..3), turns in 1..5_u8) {
        let mut cluster = with_nodes(seed);
        cluster.create(deployment(4, &rolling(json!(1), json!(1))));
        cluster.run(&NODES, 1, |_| {});
        let chance = RefCell::new(Chance::new(seed));
        cluster.refuses = Box::new(move |_, _| (chance.borrow_mut().below(3) == 0).then_some("bad luck"));
        let check = |cluster: &Cluster| {
            let active: Vec<_> = cluster.cache.pods().iter().filter(|pod| crate::pod_state::is_active(pod)).collect();
            let ready = active.iter().filter(|pod| crate::pod_state::is_ready(pod)).count();
            // A set that is scaled down counts as smaller at once, even if its pods could not be deleted. As in
            // Kubernetes, a refused deletion may leave more pods than the surge allows, but never fewer ready ones.
            assert!(ready >= 3, "{} pods, {ready} ready", active.len());
        };
        for image in images {
            set_image_if_other(&mut cluster, image);
            for _ in 0..turns {
                cluster.settle_with(check);
                cluster.advance(Duration::from_millis(200));
                cluster.run_pods(&NODES, 2);
                check(&cluster);
            }
        }
        cluster.refuses = Box::new(|_, _| None);
        cluster.advance(Duration::from_secs(1));
        cluster.run(&NODES, 2, check);
        cluster.advance(Duration::from_secs(1));
        cluster.assert_at_rest();
        prop_assert_eq!(condition(&cluster, "Progressing").1, "NewReplicaSetAvailable");
        for path in [WEB.to_owned()].into_iter().chain(cluster.names("replicasets").iter().map(|name| {
            format!("apps/replicasets/default/{name}")
        })) {
            let status = cluster.get(&path).expect("there")["status"].to_string();
            prop_assert!(!status.contains("ReplicaFailure"), "{}: {}", path, status);
        }
    }

    /// A rolling update never has more pods than `replicas + maxSurge`. It never has fewer available pods than
    /// `replicas` minus `maxUnavailable`. Both hold for any order in which controllers and nodes take their turns.
    #[test]
    fn rolling_updates_stay_within_their_limits(
        seed: u64,
        replicas in 1..9_i32,
        surge in 0..4_i32,
        unavailable in 0..4_i32,
        images in prop::collection::vec(2..5_u8, 1..4),
        turns in 0..6_u8,
    ) {
        let mut cluster = with_nodes(seed);
        cluster.create(deployment(replicas, &rolling(json!(surge), json!(unavailable))));
        cluster.run(&NODES, 1, |_| {});
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        let check = move |cluster: &Cluster| {
            let active: Vec<_> = cluster.cache.pods().iter().filter(|pod| crate::pod_state::is_active(pod)).collect();
            let ready = active.iter().filter(|pod| crate::pod_state::is_ready(pod)).count();
            let active = active.len();
            let (most, fewest) = (replicas + surge, (replicas - unavailable).max(0));
            assert!(active <= usize::try_from(most).expect("positive"), "{active} pods, at most {most}");
            assert!(ready >= usize::try_from(fewest).expect("positive"), "{ready} ready, at least {fewest}");
        };
        for image in images {
            set_image_if_other(&mut cluster, image);
            for _ in 0..turns {
                cluster.settle_with(check);
                cluster.now += Duration::from_secs(1);
                cluster.run_pods(&NODES, 3);
                check(&cluster);
            }
        }
        cluster.run(&NODES, 3, check);
        cluster.assert_at_rest();
    }
}

fn set_image_if_other(cluster: &mut Cluster, image: u8) {
    let image = format!("web:{image}");
    let stored = cluster.get(WEB).expect("there");
    if stored["spec"]["template"]["spec"]["containers"][0]["image"] != json!(image) {
        set_image(cluster, &image);
    }
}
