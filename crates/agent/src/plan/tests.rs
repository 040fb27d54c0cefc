//! Tests of the planner: tables, a simulated node, and properties that hold for any history.

mod ending;
mod ephemeral;
mod fence;
mod images;
mod probes;
mod resize;
mod restarts;
mod simulation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use simulation::{Fate, Simulation};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a moment in range")
}

pub(super) fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u1", "generation": 1 },
        "spec": spec,
    }))
    .expect("a well-formed pod")
}

fn one(container: Value) -> Pod {
    let mut container = container;
    container["name"] = json!("main");
    container["image"] = json!("app:1");
    pod(json!({ "containers": [container] }))
}

fn waiting(status: &PodStatus, name: &str) -> (String, String) {
    let all = [status.init_container_statuses.as_ref(), status.container_statuses.as_ref()];
    let found = all.into_iter().flatten().flatten().find(|c| c.name == name).expect("the container has a status");
    let waiting = found.state.as_ref().and_then(|state| state.waiting.clone()).unwrap_or_default();
    (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
}

fn condition(status: &PodStatus, type_: &str) -> String {
    let all = status.conditions.as_deref().unwrap_or_default();
    all.iter().find(|c| c.type_ == type_).map(|c| c.status.clone()).unwrap_or_default()
}

fn main_status(status: &PodStatus) -> k8s_openapi::api::core::v1::ContainerStatus {
    status.container_statuses.as_ref().and_then(|list| list.first()).cloned().expect("a status")
}

#[test]
fn sandbox_volumes_and_image_start_together() {
    let sim = Simulation::new(one(json!({})));
    let plan = sim.plan();
    let begun: Vec<Work> = plan.actions.iter().map(Action::work).collect();
    assert_eq!(begun, [Work::Volumes, Work::Sandbox, Work::Image("main".into(), "app:1".into())]);
    assert_eq!(plan.status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&plan.status, "main").0, "ContainerCreating");
    assert_eq!(condition(&plan.status, "PodScheduled"), "True");
    assert_eq!(condition(&plan.status, "PodReadyToStartContainers"), "False");
    assert_eq!(condition(&plan.status, "Ready"), "False");
}

#[test]
fn a_plain_pod_becomes_ready_and_then_nothing_is_left_to_do() {
    let mut sim = Simulation::new(one(json!({})));
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    for type_ in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&status, type_), "True", "{type_}");
    }
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let main = main_status(&status);
    assert_eq!((main.ready, main.started, main.restart_count), (true, Some(true), 0));
    assert_eq!(main.container_id.as_deref(), Some("docker://main-0"));
    assert!(sim.plan().actions.is_empty());
}

#[test]
fn the_first_containers_are_made_while_the_sandbox_starts() {
    let begun = |container: Value| {
        let mut sim = Simulation::new(one(container));
        sim.step();
        sim.plan().actions.iter().map(Action::work).collect::<Vec<_>>()
    };
    let create = Work::Create("main".to_owned());
    assert_eq!(begun(json!({})), [Work::Sandbox, create.clone()]);
    let variable = |path: &str| json!({ "env": [{ "name": "X", "valueFrom": { "fieldRef": { "fieldPath": path } } }] });
    assert_eq!(begun(variable("metadata.name")), [Work::Sandbox, create]);
    assert_eq!(begun(variable("status.podIP")), [Work::Sandbox], "the address is not known yet");
}

#[test]
fn a_restarted_agent_starts_what_the_dead_one_had_only_made() {
    let mut before = Simulation::new(one(json!({})));
    before.step();
    before.step();
    assert!(before.observed.containers.iter().all(|record| record.state == RunState::Created));
    before.restart_agent();
    let status = before.settle();
    assert_eq!(before.started(), ["main"]);
    let main = main_status(&status);
    assert_eq!((main.ready, main.restart_count, before.observed.containers.len()), (true, 0, 1));
}

#[test]
fn an_unstarted_container_of_a_dead_sandbox_is_removed_and_is_no_restart() {
    let mut sim = Simulation::new(one(json!({})));
    sim.step();
    sim.step();
    for sandbox in &mut sim.observed.sandboxes {
        sandbox.state = SandboxState::Stopped;
    }
    let main = main_status(&sim.settle());
    assert_eq!((main.ready, main.restart_count, sim.observed.containers.len()), (true, 0, 1));
}

#[test]
fn init_containers_run_in_order_and_block_the_main_ones() {
    let mut sim = Simulation::new(pod(json!({
        "initContainers": [{ "name": "first", "image": "i" }, { "name": "second", "image": "i" }],
        "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.fate("first", Fate::Runs);
    let status = sim.settle();
    assert_eq!(sim.started(), ["first"]);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status, "main").0, "PodInitializing");
    assert_eq!(waiting(&status, "second").0, "PodInitializing");
    assert_eq!(condition(&status, "Initialized"), "False");
    sim.exit("first", 0);
    sim.fate("second", Fate::Exits(0));
    let status = sim.settle();
    assert_eq!(sim.started(), ["first", "second", "main"]);
    assert_eq!(condition(&status, "Initialized"), "True");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.init_container_statuses.iter().flatten().all(|status| status.ready));
}

#[test]
fn a_sidecar_starts_before_and_ends_after_the_main_container() {
    let mut sim = Simulation::new(pod(json!({
        "initContainers": [
            { "name": "proxy", "image": "p", "restartPolicy": "Always" },
            { "name": "migrate", "image": "m" },
        ],
        "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.fate("migrate", Fate::Exits(0));
    let status = sim.settle();
    assert_eq!(sim.started(), ["proxy", "migrate", "main"]);
    assert_eq!(condition(&status, "Ready"), "True");
    sim.terminate(TerminationCause::Deleted, 30);
    sim.settle();
    assert_eq!(sim.stopped, ["main-0", "proxy-0"]);
    assert!(sim.plan().finished);
}

#[test]
fn a_missing_image_is_reported_and_pulled_again_with_backoff() {
    let mut sim = Simulation::new(one(json!({})));
    sim.missing_image = Some(FailureReason::ErrImagePull);
    let status = sim.settle();
    assert_eq!(waiting(&status, "main").0, "ErrImagePull");
    sim.pass(3);
    let (reason, message) = waiting(&sim.settle(), "main");
    assert_eq!(reason, "ImagePullBackOff");
    assert!(message.starts_with("Back-off pulling image \"app:1\""), "{message}");
    sim.pass(7);
    assert_eq!(waiting(&sim.settle(), "main").0, "ErrImagePull", "tried again after ten seconds");
    let wakes = sim.plan().wake.expect("a wake");
    assert_eq!(wakes.duration_since(sim.now).as_secs(), 2, "the reason changes to ImagePullBackOff then");
    sim.missing_image = None;
    sim.pass(20);
    assert_eq!(sim.settle().phase.as_deref(), Some("Running"));
}

#[test]
fn containers_wait_with_the_reason_of_a_missing_image_or_a_bad_config() {
    let mut sim = Simulation::new(one(json!({})));
    sim.missing_image = Some(FailureReason::ErrImageNeverPull);
    let status = sim.settle();
    assert_eq!(waiting(&status, "main").0, "ErrImageNeverPull");
    sim.pass(5);
    assert_eq!(waiting(&sim.settle(), "main").0, "ErrImageNeverPull");
    let mut sim = Simulation::new(one(json!({})));
    sim.broken_start = Some(FailureReason::CreateContainerConfigError);
    let status = sim.settle();
    assert_eq!(waiting(&status, "main").0, "CreateContainerConfigError");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn an_adopted_container_stays_ready_and_is_not_started_again() {
    let probe = json!({ "tcpSocket": { "port": 80 } });
    let mut before = Simulation::new(one(json!({ "readinessProbe": probe, "startupProbe": probe })));
    let status = before.settle();
    assert!(main_status(&status).ready);
    let mut memory = Memory::new(&status, before.now);
    memory.adopt(&before.pod, &before.observed, &status);
    let mut after = before;
    after.memory = memory;
    let plan = after.plan();
    assert!(main_status(&plan.status).ready, "{:?}", plan.status);
    assert_eq!(condition(&plan.status, "Ready"), "True");
    after.settle();
    assert_eq!(after.started(), ["main"]);
}

#[test]
fn a_readiness_gate_decides_ready_and_is_not_reported_by_the_agent() {
    let mut subject = one(json!({}));
    subject.status = Some(
        serde_json::from_value(json!({ "conditions": [{ "type": "example.com/gate", "status": "True" }] }))
            .expect("a status"),
    );
    subject.spec.as_mut().expect("a spec").readiness_gates =
        Some(vec![k8s_openapi::api::core::v1::PodReadinessGate { condition_type: "example.com/gate".into() }]);
    let mut sim = Simulation::new(subject);
    let first = sim.settle();
    sim.pass(100);
    let second = sim.settle();
    assert_eq!(first.conditions, second.conditions);
    assert_eq!(condition(&second, "Ready"), "True");
    assert_eq!(condition(&second, "example.com/gate"), "", "the agent's copy of it may be stale");
    sim.pod.status = None;
    let third = sim.settle();
    assert_eq!(condition(&third, "Ready"), "False", "the gate is closed");
    assert_eq!(condition(&third, "ContainersReady"), "True");
}

#[test]
fn the_agent_sets_pod_scheduled_only_without_a_scheduler() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    assert_eq!(condition(&sim.settle(), "PodScheduled"), "True", "no scheduler has set it");
    let mut bound = one(json!({}));
    let set = json!({ "conditions": [{ "type": "PodScheduled", "status": "True", "reason": "Bound" }] });
    bound.status = Some(serde_json::from_value(set).expect("a status"));
    let adopted = own_report(bound.status.as_ref().expect("a status"));
    let mut sim = Simulation::new(bound);
    sim.reported = adopted;
    assert_eq!(condition(&sim.settle(), "PodScheduled"), "");
    assert_eq!(condition(&sim.settle(), "Ready"), "True");
}

#[test]
fn volumes_stay_stale_until_they_show_the_masters_content() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    assert_eq!((sim.prepared, sim.memory.volumes_stale), (1, false));
    sim.memory.volumes_stale = true;
    sim.unreachable = true;
    sim.settle();
    assert_eq!((sim.prepared, sim.memory.volumes_stale), (2, true), "the last known content may be outdated");
    sim.unreachable = false;
    sim.now = sim.plan().wake.expect("another try");
    sim.settle();
    assert_eq!((sim.prepared, sim.memory.volumes_stale), (3, false));

    sim.memory.volumes_stale = true;
    let fail = Outcome::Failed { reason: FailureReason::FailedMount, message: "no luck".into() };
    sim.memory.begin(&sim.pod, &Action::PrepareVolumes);
    sim.memory.record(&sim.pod, &Completion { action: Action::PrepareVolumes, outcome: fail }, sim.now);
    assert!(sim.memory.volumes_stale, "a failure updates nothing");

    sim.memory.begin(&sim.pod, &Action::PrepareVolumes);
    sim.memory.volumes_stale = true;
    sim.memory.record(&sim.pod, &Completion { action: Action::PrepareVolumes, outcome: Outcome::Done }, sim.now);
    assert!(sim.memory.volumes_stale, "the change came while the volumes were prepared");
}

#[test]
fn a_pod_starts_with_the_last_known_content_while_no_master_answers() {
    let mut sim = Simulation::new(one(json!({})));
    sim.unreachable = true;
    assert_eq!(sim.settle().phase.as_deref(), Some("Running"));
    assert!(sim.memory.volumes_stale);
}

#[test]
fn qos_classes_follow_requests_and_limits() {
    let class = |resources: Value| qos_class(&one(json!({ "resources": resources }))).to_owned();
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({ "requests": { "cpu": "1" } })), "Burstable");
    assert_eq!(class(json!({ "limits": { "cpu": "1", "memory": "1Gi" } })), "Guaranteed");
    let both = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1", "memory": "1Gi" } });
    assert_eq!(class(both), "Guaranteed");
    let less = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m", "memory": "1Gi" } });
    assert_eq!(class(less), "Burstable");
}

proptest! {
    /// A deleted pod is removed completely, for any behaviour of its containers and any failure of the runtime.
    #[test]
    fn a_deleted_pod_is_always_removed(history in proptest::collection::vec(0_u8..10, 0..40)) {
        let mut sim = Simulation::new(pod(json!({
            "initContainers": [{ "name": "init", "image": "i" }],
            "containers": [{ "name": "main", "image": "x" }, { "name": "side", "image": "x" }],
        })));
        sim.fate("init", Fate::Exits(0));
        for event in history {
            sim.disturb(event);
            sim.step();
        }
        sim.calm();
        sim.terminate(TerminationCause::Deleted, 5);
        for _ in 0..40 {
            sim.step();
            sim.pass(31);
        }
        prop_assert!(sim.plan().finished, "{:?}", sim.plan());
        prop_assert!(sim.observed.is_empty());
    }

    /// After any history, an undisturbed pod becomes ready, and never runs two containers of one entry at once.
    #[test]
    fn an_undisturbed_pod_becomes_ready(history in proptest::collection::vec(0_u8..10, 0..40)) {
        let mut sim = Simulation::new(pod(json!({
            "initContainers": [{ "name": "init", "image": "i" }],
            "containers": [{ "name": "main", "image": "x" }, { "name": "side", "image": "x" }],
        })));
        sim.fate("init", Fate::Exits(0));
        for event in history {
            sim.disturb(event);
            sim.step();
            for name in ["main", "side"] {
                let running = sim.observed.running().filter(|record| record.name == name).count();
                prop_assert!(running <= 1, "{name} runs {running} times");
            }
        }
        sim.calm();
        for _ in 0..40 {
            sim.step();
            sim.pass(301);
        }
        let status = sim.settle();
        prop_assert_eq!(condition(&status, "Ready"), "True", "{:?}", status);
        prop_assert_eq!(Some(main_status(&status).image), sim.pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()));
        prop_assert!(sim.plan().actions.is_empty(), "{:?}", sim.plan().actions);
    }
}

#[test]
fn a_rejected_pod_has_failed_and_nothing_of_it_is_started() {
    let mut sim = Simulation::new(one(json!({})));
    let message = "spec.hostUsers: this node does not support it".to_owned();
    sim.memory.rejected = Some(Rejection { reason: "UnexpectedAdmissionError", message });
    let plan = sim.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.status.phase.as_deref(), Some("Failed"));
    assert_eq!(plan.status.reason.as_deref(), Some("UnexpectedAdmissionError"));
    let message = "Pod was rejected: spec.hostUsers: this node does not support it";
    assert_eq!(plan.status.message.as_deref(), Some(message));
    // A restarted agent reads the rejection from the status.
    sim.reported = plan.status;
    sim.memory.rejected = None;
    let plan = sim.plan();
    assert_eq!((plan.actions, plan.status.message.as_deref()), (Vec::new(), Some(message)));
}

#[test]
fn a_pod_with_an_unknown_container_waits_and_keeps_its_status() {
    let mut sim = Simulation::new(one(json!({})));
    let status = sim.settle();
    sim.observed.containers.clear();
    sim.observed.unknown.insert("main-0".to_owned(), Role::Container);
    let plan = sim.plan();
    assert_eq!((plan.actions, plan.status), (Vec::new(), status), "the container may run");

    sim.terminate(TerminationCause::Deleted, 30);
    let grace = Grace { seconds: 30, until: Some(at(30)) };
    let stop = Action::StopUnknown { id: "main-0".to_owned(), grace };
    assert_eq!((sim.plan().actions, sim.plan().wake), (vec![stop], Some(at(30))), "it has its grace period");
    sim.observed.unknown.insert("sandbox-0".to_owned(), Role::Sandbox);
    sim.settle();
    assert_eq!(sim.stopped, ["main-0"], "it is stopped once, and the sandbox lives as long as it may run");
    sim.pass(30);
    assert_eq!(sim.plan().actions, [Action::RemovePod], "a pod can be deleted although a container is broken");
}

#[test]
fn a_restarted_agent_adopts_a_pod_when_all_of_its_containers_are_known() {
    let mut sim = Simulation::new(one(json!({
        "lifecycle": { "postStart": { "exec": { "command": ["true"] } } },
        "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 10 },
    })));
    sim.settle();
    let (status, known, probes) = (sim.reported.clone(), sim.observed.clone(), sim.probes);
    assert_eq!(condition(&status, "Ready"), "True");
    // Docker lists the container but cannot inspect it.
    sim.observed.containers.clear();
    sim.observed.unknown.insert("main-0".to_owned(), Role::Container);
    sim.restart_agent();
    assert_eq!((sim.plan().actions, sim.plan().status), (Vec::new(), status.clone()));
    sim.observed = known;
    assert_eq!((sim.plan().actions, sim.plan().status), (Vec::new(), status), "known, but not adopted yet");
    let reported = sim.reported.clone();
    sim.memory.adopt(&sim.pod, &sim.observed, &reported);
    let plan = sim.plan();
    assert!(!plan.actions.iter().any(|action| matches!(action, Action::RunPostStart { .. })), "{:?}", plan.actions);
    assert_eq!(condition(&plan.status, "Ready"), "True");
    assert_eq!(sim.probes, probes);
}

#[test]
fn a_running_container_that_cannot_be_inspected_any_more_is_stopped_and_removed() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.observed.unknown.insert("main-0".to_owned(), Role::Container);
    sim.terminate(TerminationCause::Deleted, 30);
    let actions = sim.plan().actions;
    let [stop @ Action::StopContainer { id, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(id, "main-0");
    sim.memory.begin(&sim.pod, stop);
    let done = Completion { action: stop.clone(), outcome: Outcome::Done };
    sim.memory.record(&sim.pod, &done, sim.now);
    assert!(sim.plan().actions.is_empty(), "it is stopped once, although it still seems to run");
    sim.pass(30);
    assert_eq!(sim.plan().actions, [Action::RemovePod]);
}
