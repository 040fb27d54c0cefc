//! Terminations: the grace period, the order of stops, hooks and probes.

use serde_json::{Value, json};

use super::*;

fn with_sidecars(main: Value) -> Simulation {
    let mut main = main;
    main["name"] = json!("main");
    main["image"] = json!("app:1");
    Simulation::new(pod(json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "initContainers": [
            { "name": "first", "image": "p", "restartPolicy": "Always" },
            { "name": "second", "image": "p", "restartPolicy": "Always", "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } } },
        ],
        "containers": [main],
    })))
}

fn deafen(sim: &mut Simulation, names: &[&str]) {
    sim.deaf = names.iter().map(|name| (*name).to_owned()).collect();
}

#[test]
fn all_containers_share_one_grace_period() {
    // A container that is stopped after the end of the grace period gets two seconds, as with the kubelet.
    let cases: [(&[&str], i64); 5] =
        [(&[], 0), (&["main"], 10), (&["second"], 10), (&["first", "second"], 12), (&["main", "first", "second"], 12)];
    for (deaf, seconds) in cases {
        let mut sim = with_sidecars(json!({}));
        sim.settle();
        deafen(&mut sim, deaf);
        sim.terminate(TerminationCause::Deleted, 10);
        assert_eq!(sim.seconds_until_stopped(), seconds, "{deaf:?}");
        sim.settle();
        assert!(sim.plan().finished, "{deaf:?}");
    }
}

#[test]
fn sidecars_are_stopped_in_reverse_order_after_the_main_containers() {
    let mut sim = with_sidecars(json!({}));
    sim.settle();
    sim.terminate(TerminationCause::Deleted, 10);
    sim.settle();
    assert_eq!(sim.stopped, ["main-0", "second-0", "first-0"]);
}

#[test]
fn without_a_grace_period_all_containers_are_killed_at_once() {
    let mut sim = with_sidecars(json!({}));
    sim.settle();
    sim.terminate(TerminationCause::Deleted, 0);
    let stops = sim.plan().actions.len();
    assert_eq!(stops, 3, "{:?}", sim.plan());
}

#[test]
fn the_pre_stop_hook_of_a_sidecar_runs_once_when_the_termination_begins() {
    let mut sim = with_sidecars(json!({}));
    sim.settle();
    deafen(&mut sim, &["main"]);
    sim.terminate(TerminationCause::Deleted, 10);
    sim.settle();
    assert_eq!(
        (sim.stopped.as_slice(), sim.pre_stops.as_slice()),
        (["main-0".to_owned()].as_slice(), ["second-0".to_owned()].as_slice())
    );
    assert_eq!(sim.seconds_until_stopped(), 10);
    assert_eq!(sim.pre_stops, ["second-0"]);
}

#[test]
fn a_running_pre_stop_hook_delays_the_stop_until_the_grace_period_is_over() {
    let mut sim = with_sidecars(json!({}));
    sim.settle();
    deafen(&mut sim, &["main"]);
    sim.terminate(TerminationCause::Deleted, 10);
    let hook =
        sim.plan().actions.into_iter().find(|action| matches!(action, Action::RunPreStop { .. })).expect("a hook");
    sim.memory.begin(&sim.pod, &hook);
    sim.settle();
    sim.exit("main", 0);
    sim.settle();
    assert_eq!(sim.stopped, ["main-0"], "the hook of the second sidecar still runs");
    sim.pass(10);
    sim.settle();
    assert_eq!(sim.stopped.len(), 3, "the grace period is over");
}

#[test]
fn the_sidecars_of_a_finished_pod_share_one_grace_period() {
    let mut sim = with_sidecars(json!({}));
    sim.settle();
    deafen(&mut sim, &["first", "second"]);
    sim.exit("main", 0);
    assert_eq!(sim.seconds_until_stopped(), 12);
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert!(sim.observed.sandbox().is_none());
}

#[test]
fn readiness_is_probed_until_the_containers_have_ended() {
    let probe = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 1 });
    let mut sim = Simulation::new(one(json!({ "readinessProbe": probe, "livenessProbe": probe })));
    assert_eq!(condition(&sim.settle(), "Ready"), "True");
    deafen(&mut sim, &["main"]);
    sim.terminate(TerminationCause::Deleted, 10);
    let before = sim.probed.clone();
    sim.pass(1);
    assert_eq!(condition(&sim.settle(), "Ready"), "True", "it still serves");
    sim.healthy = false;
    sim.pass(1);
    let status = sim.settle();
    assert_eq!((condition(&status, "Ready").as_str(), status.phase.as_deref()), ("False", Some("Running")));
    assert!(sim.probed[&ProbeKind::Readiness] > before[&ProbeKind::Readiness]);
    assert_eq!(sim.probed[&ProbeKind::Liveness], before[&ProbeKind::Liveness], "liveness is no longer probed");
}

#[test]
fn a_deletion_stops_the_containers_then_removes_the_pod_then_its_object() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.terminate(TerminationCause::Deleted, 30);
    let plan = sim.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::StopContainer { grace: Grace { seconds: 30, .. }, .. }]),
        "{plan:?}"
    );
    sim.step();
    let plan = sim.plan();
    assert_eq!(plan.actions, [Action::RemovePod]);
    assert_eq!(plan.status.phase.as_deref(), Some("Failed"), "the container exited with a code after SIGTERM");
    assert!(main_status(&plan.status).state.and_then(|state| state.terminated).is_some());
    sim.step();
    let plan = sim.plan();
    assert_eq!(plan.actions, [Action::DeleteFromApi]);
    assert!(
        main_status(&plan.status).state.and_then(|state| state.terminated).is_some(),
        "the status still shows its end"
    );
    sim.step();
    assert!(sim.plan().finished);
}

#[test]
fn a_shorter_grace_period_hurries_a_stop_in_flight() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.terminate(TerminationCause::Deleted, 30);
    sim.memory.begin(&sim.pod, &sim.plan().actions[0].clone());
    assert!(sim.plan().actions.is_empty());
    sim.terminate(TerminationCause::Deleted, 0);
    let plan = sim.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::StopContainer { grace: Grace { seconds: 0, .. }, .. }]),
        "{plan:?}"
    );
}

#[test]
fn nothing_is_removed_while_a_container_is_being_started() {
    for making in [Work::Sandbox, Work::Create("main".to_owned()), Work::Start("main".to_owned())] {
        let mut sim = Simulation::new(one(json!({})));
        let action = loop {
            if let Some(action) = sim.plan().actions.into_iter().find(|action| action.work() == making) {
                break action;
            }
            assert!(sim.step(), "{making:?} never came up");
        };
        sim.memory.begin(&sim.pod, &action);
        sim.terminate(TerminationCause::Gone, 2);
        assert!(sim.plan().actions.is_empty(), "{:?}", sim.plan());
    }
}

#[test]
fn a_pod_whose_object_is_gone_is_not_deleted_from_the_api() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.terminate(TerminationCause::Gone, 2);
    sim.settle();
    assert!(sim.plan().finished);
    assert!(!sim.deleted);
}

#[test]
fn a_pod_past_its_deadline_fails_and_keeps_its_containers() {
    let mut sim = Simulation::new(pod(json!({
        "activeDeadlineSeconds": 60,
        "containers": [{ "name": "main", "image": "x" }],
    })));
    sim.settle();
    assert_eq!(sim.plan().wake, Some(at(60)));
    sim.terminate(TerminationCause::DeadlineExceeded, 30);
    let status = sim.settle();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    assert!(sim.observed.sandbox().is_none());
    assert_eq!(sim.observed.containers.len(), 1);
    assert!(!sim.plan().finished);
}
