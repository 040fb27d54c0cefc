//! Ephemeral containers: started once, and without influence on the pod.

use k8s_openapi::api::core::v1::{ContainerStatus, EphemeralContainer};

use super::*;

fn debugger(name: &str) -> EphemeralContainer {
    EphemeralContainer { name: name.to_owned(), image: Some("debug:1".to_owned()), ..EphemeralContainer::default() }
}

fn add(sim: &mut Simulation, name: &str) {
    let spec = sim.pod.spec.as_mut().expect("a spec");
    spec.ephemeral_containers.get_or_insert_default().push(debugger(name));
}

fn of(status: &PodStatus, name: &str) -> ContainerStatus {
    let list = status.ephemeral_container_statuses.as_deref().unwrap_or_default();
    list.iter().find(|status| status.name == name).cloned().expect("a status")
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

#[test]
fn an_added_container_starts_in_the_running_pod_and_is_never_restarted() {
    for (policy, code) in [("Always", 0), ("Always", 1), ("OnFailure", 1), ("Never", 1)] {
        let mut sim = Simulation::new(pod(json!({
            "restartPolicy": policy, "containers": [{ "name": "main", "image": "app:1" }],
        })));
        let before = sim.settle();
        assert_eq!(before.ephemeral_container_statuses, None);
        add(&mut sim, "debug");
        let status = sim.settle();
        assert_eq!(sim.started(), ["main", "debug"]);
        let debug = of(&status, "debug");
        assert!(debug.state.as_ref().is_some_and(|state| state.running.is_some()), "{debug:?}");
        assert_eq!((debug.ready, debug.started), (false, None));
        sim.exit("debug", code);
        sim.pass(1000);
        let status = sim.settle();
        assert_eq!(exit_code(&of(&status, "debug")), Some(code), "{policy}");
        assert_eq!(sim.started(), ["main", "debug"], "{policy}");
        assert_eq!((status.phase.as_deref(), condition(&status, "Ready").as_str()), (Some("Running"), "True"));
    }
}

#[test]
fn a_container_that_cannot_start_does_not_make_its_pod_unready() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.missing_image = Some(FailureReason::ErrImagePull);
    add(&mut sim, "debug");
    let status = sim.settle();
    let debug = of(&status, "debug");
    let waiting = debug.state.and_then(|state| state.waiting).and_then(|waiting| waiting.reason);
    assert_eq!(waiting.as_deref(), Some("ErrImagePull"));
    assert_eq!((status.phase.as_deref(), condition(&status, "Ready").as_str()), (Some("Running"), "True"));
    sim.missing_image = None;
    sim.pass(20);
    assert!(of(&sim.settle(), "debug").state.is_some_and(|state| state.running.is_some()));
}

#[test]
fn a_container_starts_while_an_init_container_fails() {
    let mut sim = Simulation::new(pod(json!({
        "initContainers": [{ "name": "init", "image": "i" }],
        "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.fate("init", Fate::Exits(1));
    sim.settle();
    add(&mut sim, "debug");
    let status = sim.settle();
    assert_eq!(sim.started().last().map(String::as_str), Some("debug"));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn ephemeral_containers_end_with_their_pod() {
    let mut sim = Simulation::new(pod(json!({
        "restartPolicy": "Never", "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.settle();
    add(&mut sim, "debug");
    sim.settle();
    sim.exit("main", 0);
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "a pod does not wait for its debugger");
    assert_eq!(sim.stopped, ["debug-0"]);
    add(&mut sim, "late");
    sim.settle();
    assert_eq!(sim.started(), ["main", "debug"], "nothing starts in a pod that is over");

    let mut sim = Simulation::new(one(json!({})));
    add(&mut sim, "debug");
    sim.settle();
    sim.terminate(TerminationCause::Deleted, 30);
    sim.settle();
    assert_eq!(sim.stopped.iter().filter(|id| *id == "debug-0").count(), 1);
    assert!(sim.deleted);
}

#[test]
fn a_lost_container_counts_as_ended() {
    let mut sim = Simulation::new(one(json!({})));
    add(&mut sim, "debug");
    sim.settle();
    sim.observed.containers.retain(|record| record.name != "debug");
    sim.restart_agent();
    for _ in 0..2 {
        let status = sim.settle();
        assert_eq!(exit_code(&of(&status, "debug")), Some(137));
        assert_eq!(sim.started().iter().filter(|name| *name == "debug").count(), 1);
    }
}
