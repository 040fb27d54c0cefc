//! Changed images of a running pod's containers.

use serde_json::json;

use super::*;

#[test]
fn a_changed_image_restarts_its_container_under_any_restart_policy() {
    for policy in ["Always", "OnFailure", "Never"] {
        let mut sim = Simulation::new(pod(json!({
            "restartPolicy": policy,
            "containers": [{ "name": "main", "image": "app:1" }, { "name": "side", "image": "side:1" }],
        })));
        sim.settle();
        sim.pass(100);
        sim.set_image("main", "app:2");
        while sim.step() {
            assert_eq!(sim.reported.phase.as_deref(), Some("Running"), "{policy}: {:?}", sim.reported);
        }
        let main = main_status(&sim.settle());
        assert_eq!((main.ready, main.restart_count, main.image.as_str()), (true, 1, "app:2"), "{policy}");
        assert_eq!(main.image_id, "docker://sha256:app:2", "{policy}");
        assert_eq!(
            (sim.stopped.as_slice(), sim.started()),
            (["main-0".to_owned()].as_slice(), ["main", "side", "main"].map(str::to_owned).as_slice()),
            "{policy}"
        );
        assert_eq!(sim.stop_messages, ["Container main definition changed, will be restarted"]);
    }
}

#[test]
fn status_shows_the_image_that_runs() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.deaf.insert("main".to_owned());
    sim.set_image("main", "app:2");
    let main = main_status(&sim.settle());
    assert_eq!(
        (main.image.as_str(), main.image_id.as_str()),
        ("app:1", "docker://sha256:app:1"),
        "the old container still runs"
    );
    sim.pass(30);
    assert_eq!(main_status(&sim.settle()).image, "app:2");
}

#[test]
fn a_changed_image_does_not_wait_for_the_backoff_of_the_previous_one() {
    let mut sim = Simulation::new(one(json!({})));
    sim.missing_image = Some(FailureReason::ErrImagePull);
    assert_eq!(waiting(&sim.settle(), "main").0, "ErrImagePull");
    sim.missing_image = None;
    sim.set_image("main", "app:2");
    assert_eq!(sim.settle().phase.as_deref(), Some("Running"), "after a failed pull");

    let mut sim = Simulation::new(one(json!({})));
    sim.fate("main", Fate::Exits(1));
    assert_eq!(waiting(&sim.settle(), "main").0, "CrashLoopBackOff");
    sim.fate("main", Fate::Runs);
    sim.set_image("main", "app:2");
    assert_eq!(main_status(&sim.settle()).image, "app:2", "after a crash");
    sim.exit("main", 1);
    let starts = sim.started().len();
    sim.settle();
    assert_eq!(sim.started().len(), starts + 1, "the crash backoff starts over");

    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    sim.set_image("main", "app:2");
    sim.settle();
    sim.exit("main", 1);
    assert_eq!(main_status(&sim.settle()).restart_count, 2, "the first restart of an image is immediate");

    let mut sim = Simulation::new(one(json!({})));
    sim.broken_start = Some(FailureReason::CreateContainerError);
    assert_eq!(waiting(&sim.settle(), "main").0, "CreateContainerError");
    sim.broken_start = None;
    sim.set_image("main", "app:2");
    assert_eq!(sim.settle().phase.as_deref(), Some("Running"), "after a failure to make the container");
}

#[test]
fn an_unstarted_container_is_replaced_by_one_of_the_new_image() {
    let mut sim = Simulation::new(one(json!({})));
    sim.step();
    sim.step();
    assert!(sim.observed.containers.iter().all(|record| record.state == RunState::Created));
    sim.set_image("main", "app:2");
    let main = main_status(&sim.settle());
    assert_eq!((main.image.as_str(), main.restart_count, sim.started()), ("app:2", 0, ["main".to_owned()].as_slice()));
}

#[test]
fn sidecars_follow_a_changed_image_and_plain_init_containers_run_to_their_end() {
    let mut sim = Simulation::new(pod(json!({
        "initContainers": [
            { "name": "proxy", "image": "p:1", "restartPolicy": "Always" },
            { "name": "migrate", "image": "m:1" },
        ],
        "containers": [{ "name": "main", "image": "app:1" }],
    })));
    sim.settle();
    sim.set_image("migrate", "m:2");
    sim.set_image("proxy", "p:2");
    sim.settle();
    assert_eq!(sim.stopped, ["proxy-0"]);
    sim.exit("migrate", 0);
    let status = sim.settle();
    assert_eq!(sim.started(), ["proxy", "migrate", "proxy", "main"]);
    let inits = status.init_container_statuses.expect("statuses");
    let images: Vec<_> = inits.iter().map(|status| (status.image.as_str(), status.ready)).collect();
    assert_eq!(images, [("p:2", true), ("m:1", true)]);
}

#[test]
fn a_container_of_an_unknown_image_is_left_alone() {
    let mut sim = Simulation::new(one(json!({})));
    sim.settle();
    for record in &mut sim.observed.containers {
        record.image = String::new();
    }
    let main = main_status(&sim.settle());
    assert_eq!(
        (main.image.as_str(), main.restart_count),
        ("app:1", 0),
        "an older agent, which did not record the image, made it"
    );
}
