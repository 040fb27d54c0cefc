//! Restarts: the policy, the crash backoff, and containers that are replaced.

use super::*;

#[test]
fn a_failing_init_container_is_retried_or_fails_the_pod() {
    let spec = |policy: &str| {
        pod(json!({
            "restartPolicy": policy,
            "initContainers": [{ "name": "init", "image": "i" }],
            "containers": [{ "name": "main", "image": "app:1" }],
        }))
    };
    let mut sim = Simulation::new(spec("Always"));
    sim.fate("init", Fate::Exits(1));
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status, "init").0, "CrashLoopBackOff");
    assert_eq!(sim.started(), ["init", "init"], "the first restart is immediate, the second waits");
    let mut sim = Simulation::new(spec("Never"));
    sim.fate("init", Fate::Exits(1));
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(sim.started(), ["init"]);
    assert!(sim.observed.sandbox().is_none(), "a finished pod releases its network");
}

#[test]
fn crashes_back_off_twice_as_long_each_time_up_to_five_minutes() {
    let mut sim = Simulation::new(one(json!({})));
    sim.fate("main", Fate::Exits(1));
    let mut delays = Vec::new();
    for _ in 0..8 {
        let status = sim.settle();
        let (reason, message) = waiting(&status, "main");
        assert_eq!(reason, "CrashLoopBackOff");
        assert!(message.ends_with("restarting failed container=main pod=web_shop(u1)"), "{message}");
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let wake = sim.plan().wake.expect("a time to start again");
        delays.push(wake.duration_since(sim.now).as_secs());
        sim.now = wake;
    }
    assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300, 300]);
    // Ten minutes without a crash reset the backoff.
    sim.fate("main", Fate::Runs);
    sim.settle();
    sim.pass(700);
    sim.exit("main", 1);
    let before = sim.started().len();
    sim.settle();
    assert_eq!(sim.started().len(), before + 1, "the restart is immediate again");
}

#[test]
fn the_restart_policy_decides_whether_an_exit_restarts() {
    let cases = [
        ("Always", 0, 2, "Running"),
        ("Always", 1, 2, "Running"),
        ("OnFailure", 0, 1, "Succeeded"),
        ("OnFailure", 1, 2, "Running"),
        ("Never", 0, 1, "Succeeded"),
        ("Never", 1, 1, "Failed"),
    ];
    for (policy, code, starts, phase) in cases {
        let mut spec = one(json!({}));
        spec.spec.as_mut().expect("a spec").restart_policy = Some(policy.to_owned());
        let mut sim = Simulation::new(spec);
        sim.fate("main", Fate::Exits(code));
        let status = sim.settle();
        assert_eq!(sim.started().len(), starts, "{policy} {code}");
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}");
        let over = phase != "Running";
        assert_eq!(main_status(&status).state.and_then(|s| s.terminated).is_some(), over, "{policy} {code}");
    }
}

#[test]
fn a_pod_with_one_ended_container_is_running_but_not_ready() {
    let mut sim = Simulation::new(pod(json!({
        "restartPolicy": "OnFailure",
        "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "x" }],
    })));
    sim.fate("a", Fate::Exits(0));
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready"), "False");
    sim.exit("b", 0);
    let status = sim.settle();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").expect("the condition");
    assert_eq!(ready.reason.as_deref(), Some("PodCompleted"));
}

#[test]
fn a_dead_sandbox_is_replaced_together_with_its_containers() {
    let mut sim = Simulation::new(pod(json!({
        "initContainers": [{ "name": "init", "image": "i" }],
        "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.fate("init", Fate::Exits(0));
    sim.settle();
    for sandbox in &mut sim.observed.sandboxes {
        sandbox.state = SandboxState::Stopped;
    }
    sim.pass(30);
    let status = sim.settle();
    assert_eq!(sim.stopped, ["main-0"]);
    assert_eq!(sim.started(), ["init", "main", "init", "main"]);
    assert_eq!(main_status(&status).restart_count, 1);
    assert_eq!(sim.observed.sandbox().map(|sandbox| sandbox.attempt), Some(1));
}

#[test]
fn only_the_newest_containers_are_kept() {
    let mut sim = Simulation::new(one(json!({})));
    sim.fate("main", Fate::Exits(1));
    for _ in 0..6 {
        sim.settle();
        sim.pass(400);
    }
    sim.settle();
    assert!(sim.observed.containers.len() <= 3, "{:?}", sim.observed.containers);
    let main = main_status(&sim.settle());
    assert!(main.restart_count >= 6, "{main:?}");
}
