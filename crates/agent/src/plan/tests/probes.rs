//! Probes and postStart hooks.

use super::*;

#[test]
fn a_readiness_probe_changes_ready_and_restarts_nothing() {
    let probe = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 5, "successThreshold": 2, "failureThreshold": 2,
        "initialDelaySeconds": 3 });
    let mut sim = Simulation::new(one(json!({ "readinessProbe": probe })));
    let status = sim.settle();
    let main = main_status(&status);
    assert_eq!((main.ready, main.started), (false, Some(true)));
    assert_eq!(sim.probes, 0, "no probe before the initial delay");
    sim.pass(3);
    assert!(!main_status(&sim.settle()).ready, "one success is not enough");
    sim.pass(5);
    assert!(main_status(&sim.settle()).ready);
    sim.healthy = false;
    sim.pass(5);
    assert!(main_status(&sim.settle()).ready, "one failure is not enough");
    sim.pass(5);
    let status = sim.settle();
    assert!(!main_status(&status).ready);
    assert_eq!(condition(&status, "Ready"), "False");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(sim.started(), ["main"], "a readiness probe restarts nothing");
}

#[test]
fn a_startup_probe_delays_other_probes_and_its_failure_restarts() {
    let probe =
        |threshold: i32| json!({ "exec": { "command": ["x"] }, "periodSeconds": 1, "failureThreshold": threshold });
    let mut sim = Simulation::new(one(json!({ "startupProbe": probe(3), "livenessProbe": probe(1) })));
    sim.healthy = false;
    let status = sim.settle();
    assert_eq!(main_status(&status).started, Some(false));
    sim.pass(1);
    sim.settle();
    assert_eq!(sim.stopped, Vec::<String>::new(), "the liveness probe has not run yet");
    sim.healthy = true;
    sim.pass(1);
    let status = sim.settle();
    assert_eq!(main_status(&status).started, Some(true));
    sim.healthy = false;
    sim.pass(1);
    sim.settle();
    assert_eq!(sim.stopped, ["main-0"]);
    assert_eq!(sim.started(), ["main", "main"]);
}

#[test]
fn a_failed_post_start_hook_restarts_the_container() {
    let hook = json!({ "lifecycle": { "postStart": { "exec": { "command": ["x"] } } } });
    let mut sim = Simulation::new(one(hook));
    sim.broken_hook = true;
    sim.step();
    let status = sim.settle();
    assert!(sim.stopped.contains(&"main-0".to_owned()));
    assert!(!main_status(&status).ready);
    sim.broken_hook = false;
    sim.pass(300);
    assert!(main_status(&sim.settle()).ready);
}

#[test]
fn a_container_starts_after_the_post_start_hook_of_the_previous_one() {
    let mut sim = Simulation::new(pod(json!({ "containers": [
        { "name": "a", "image": "x", "lifecycle": { "postStart": { "exec": { "command": ["x"] } } } },
        { "name": "b", "image": "x" },
    ] })));
    sim.held_hook = true;
    sim.settle();
    assert_eq!(sim.started(), ["a"], "b is not started while the hook of a runs");
}
