//! Fences: holds, stops, and what becomes of a pod that its fence has stopped.

use super::*;

fn policy(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy,
        "containers": [{ "name": "main", "image": "app:1" }, { "name": "side", "image": "app:1" }],
    }))
}

fn lapsed(seconds: i64) -> FenceVerdict {
    FenceVerdict::Stop { lapsed_at: at(seconds) }
}

fn terminated_reasons(status: &PodStatus) -> Vec<String> {
    let all = status.container_statuses.iter().flatten();
    let ended = all.filter_map(|container| {
        let state =
            |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone()?.reason;
        state(&container.state).or_else(|| state(&container.last_state))
    });
    ended.collect()
}

#[test]
fn a_fenced_pod_starts_after_confirmation_and_stops_when_its_fence_lapses() {
    let sim = Simulation::new(one(json!({})));
    let begun: Vec<Work> = sim.plan_within(FenceVerdict::Hold).actions.iter().map(Action::work).collect();
    assert_eq!(begun, [Work::Volumes, Work::Image("main".into(), "app:1".into())], "nothing is started");

    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    assert!(sim.plan_within(FenceVerdict::Hold).actions.is_empty(), "running containers continue");
    let stops = sim.plan_within(lapsed(0)).actions;
    assert_eq!(stops.iter().map(Action::work).collect::<Vec<_>>(), [Work::Stop("main-0".into(), 30)]);
}

#[test]
fn a_pod_that_its_fence_has_stopped_never_succeeds() {
    let cases = [("Never", "Failed", 2), ("OnFailure", "Running", 4), ("Always", "Running", 4)];
    for (restart_policy, phase, starts) in cases {
        let mut sim = Simulation::new(policy(restart_policy));
        sim.settle();
        sim.stop_code = 0;
        let status = sim.settle_within(lapsed(0));
        assert_eq!(status.phase.as_deref(), Some(phase), "{restart_policy}: stopped with exit code 0");
        // The masters have confirmed that the pod is still this node's.
        let status = sim.settle();
        assert_eq!(status.phase.as_deref(), Some(phase), "{restart_policy}: the node is back");
        assert_eq!(sim.started().len(), starts, "{restart_policy}");
        let reason = (phase == "Failed").then_some("Fenced");
        assert_eq!(status.reason.as_deref(), reason, "{restart_policy}");
        assert_eq!(status.message.is_some(), phase == "Failed", "{restart_policy}");
        assert_eq!(terminated_reasons(&status), ["Fenced", "Fenced"], "{restart_policy}");
    }
}

#[test]
fn containers_that_ended_before_the_fence_lapsed_keep_their_result() {
    let mut sim = Simulation::new(policy("Never"));
    sim.settle();
    sim.exit("side", 0);
    sim.stop_code = 0;
    let status = sim.settle_within(lapsed(0));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Fenced")));
    assert_eq!(terminated_reasons(&status), ["Fenced", "Completed"]);

    let mut sim = Simulation::new(policy("Never"));
    sim.settle();
    sim.exit("main", 0);
    sim.exit("side", 0);
    let status = sim.settle_within(lapsed(0));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Succeeded"), None), "all had ended before");
}

#[test]
fn an_init_container_that_the_fence_has_stopped_is_not_complete() {
    let mut sim = Simulation::new(pod(json!({
        "initContainers": [{ "name": "init", "image": "i" }],
        "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.settle();
    sim.stop_code = 0;
    let status = sim.settle_within(lapsed(0));
    assert_eq!(condition(&status, "Initialized"), "False");
    sim.settle();
    assert_eq!(sim.started(), ["init", "init"], "it runs again before the main container");
}

#[test]
fn restarts_after_a_fence_back_off_like_those_after_a_crash() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.settle_within(lapsed(0));
    sim.settle();
    assert_eq!(sim.started().len(), 2, "the first restart is immediate, as with a crash");
    sim.settle_within(lapsed(0));
    assert_eq!(waiting(&sim.settle(), "main").0, "CrashLoopBackOff");
    assert_eq!(sim.plan().wake, Some(backoff::after(sim.now, 10)));
    sim.pass(10);
    sim.settle();
    assert_eq!(sim.started().len(), 3);
}

#[test]
fn the_grace_period_of_a_fenced_stop_counts_from_the_lapse() {
    for (late, left) in [(0, 30), (10, 20), (29, 2), (500, 2)] {
        let mut sim = Simulation::new(one(json!({})));
        sim.settle();
        sim.pass(late);
        let actions = sim.plan_within(lapsed(0)).actions;
        let [Action::StopContainer { grace, cause: StopCause::Fenced, .. }] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert_eq!(grace.for_stop(sim.now).as_secs(), left, "{late} s late");
    }
}

#[test]
fn a_failed_stop_is_tried_again_each_second() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    for _ in 0..5 {
        let action = sim.plan_within(lapsed(0)).actions.pop().expect("a stop");
        sim.memory.begin(&sim.pod, &action);
        let outcome = Outcome::Failed { reason: FailureReason::Other, message: "no engine".into() };
        sim.memory.record(&sim.pod, &Completion { action, outcome }, sim.now);
        let plan = sim.plan_within(lapsed(0));
        assert_eq!((plan.actions, plan.wake), (Vec::new(), Some(backoff::after(sim.now, 1))));
        sim.pass(1);
    }
}

#[test]
fn a_deletion_with_less_grace_hurries_a_fenced_stop() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.terminate(TerminationCause::Deleted, 30);
    sim.pass(5);
    let actions = sim.plan_within(lapsed(5)).actions;
    let [Action::StopContainer { grace, cause: StopCause::Fenced, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(grace.until, Some(at(30)), "the deletion's period began earlier");
}

#[test]
fn a_container_whose_fenced_stop_has_failed_ends_with_its_own_result() {
    let mut sim = Simulation::new(policy("Never"));
    sim.settle();
    for action in sim.plan_within(lapsed(0)).actions {
        sim.memory.begin(&sim.pod, &action);
        let outcome = Outcome::Failed { reason: FailureReason::Other, message: "no engine".into() };
        sim.memory.record(&sim.pod, &Completion { action, outcome }, sim.now);
    }
    let observed = sim.observed.clone();
    assert_eq!(sim.memory.fenced.len(), 2);
    // The masters have confirmed that the pod is still this node's.
    sim.memory.release_fenced(&observed);
    for name in ["main", "side"] {
        sim.exit(name, 0);
    }
    assert_eq!(sim.settle().phase.as_deref(), Some("Succeeded"));
}

#[test]
fn a_stop_that_succeeds_after_the_masters_confirmed_the_pod_stays_the_fences() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    let action = sim.plan_within(lapsed(0)).actions.pop().expect("a stop");
    sim.memory.begin(&sim.pod, &action);
    let observed = sim.observed.clone();
    sim.memory.release_fenced(&observed);
    assert!(sim.memory.fenced.contains("main-0"), "the stop is in flight");
}

#[test]
fn a_mark_counts_for_as_long_as_its_stop_takes() {
    let exit = |seconds| Exit {
        started_at: None,
        finished_at: at(seconds),
        code: 0,
        reason: String::new(),
        message: String::new(),
    };
    assert!(ended_by_fence(&exit(130), at(100), 30));
    assert!(!ended_by_fence(&exit(141), at(100), 30), "the stop has failed, and the container ran on");
}

#[test]
fn a_stop_in_flight_is_marked_when_the_fence_lapses() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.deaf.insert("main".to_owned());
    sim.terminate(TerminationCause::Deleted, 30);
    sim.settle();
    sim.pass(5);
    let mark = Action::MarkFenced { id: "main-0".to_owned() };
    assert_eq!(sim.plan_within(lapsed(5)).actions, std::slice::from_ref(&mark), "it is not stopped a second time");
    sim.memory.begin(&sim.pod, &mark);
    assert!(sim.plan_within(lapsed(5)).actions.is_empty());
    let outcome = Outcome::Failed { reason: FailureReason::Other, message: "no disk".into() };
    sim.memory.record(&sim.pod, &Completion { action: mark.clone(), outcome }, sim.now);
    sim.pass(1);
    assert_eq!(sim.plan_within(lapsed(5)).actions, [mark], "it is tried again");
}
