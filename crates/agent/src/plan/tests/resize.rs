//! Resizes of running containers.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::*;

fn resized(sim: &mut Simulation, resources: &Value) {
    let spec = sim.pod.spec.as_mut().expect("a spec");
    spec.containers[0].resources = Some(serde_json::from_value(resources.clone()).expect("resources"));
}

fn resources(status: &ContainerStatus) -> Value {
    json!(status.resources.as_ref().expect("reported"))
}

fn small() -> Value {
    json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "64Mi" } })
}

fn large() -> Value {
    json!({ "requests": { "cpu": "200m", "memory": "96Mi" }, "limits": { "memory": "96Mi" } })
}

#[test]
fn a_running_container_is_changed_in_place() {
    let mut sim = Simulation::new(one(json!({ "resources": small() })));
    let before = sim.settle();
    assert_eq!(resources(&main_status(&before)), small());
    assert_eq!(json!(main_status(&before).allocated_resources), small()["requests"]);
    assert_eq!(condition(&before, "PodResizeInProgress"), "", "no resize is in progress");

    resized(&mut sim, &large());
    let planned = sim.plan();
    let [Action::ResizeContainer { container, id, .. }] = &planned.actions[..] else { panic!("{planned:?}") };
    assert_eq!((container.as_str(), id.as_str()), ("main", "main-0"));
    assert_eq!(resources(&main_status(&planned.status)), small(), "the container has the old ones");
    assert_eq!(json!(main_status(&planned.status).allocated_resources), large()["requests"]);
    assert_eq!(condition(&planned.status, "PodResizeInProgress"), "True");

    let after = sim.settle();
    assert_eq!(resources(&main_status(&after)), large());
    assert_eq!(condition(&after, "PodResizeInProgress"), "");
    assert_eq!((sim.started(), main_status(&after).restart_count), (&["main".to_owned()][..], 0));
    sim.restart_agent();
    assert_eq!(sim.settle(), after, "a new agent knows what the container has");
    assert!(sim.plan().actions.is_empty());
}

#[test]
fn a_policy_restarts_the_container_for_its_resource_alone() {
    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let mut sim = Simulation::new(one(json!({ "resources": small(), "resizePolicy": policy })));
    sim.settle();
    let mut cpu = small();
    cpu["requests"]["cpu"] = json!("200m");
    resized(&mut sim, &cpu);
    assert_eq!((main_status(&sim.settle()).restart_count, sim.stopped.len()), (0, 0));
    resized(&mut sim, &large());
    let status = sim.settle();
    assert_eq!(sim.stop_messages, ["Container main resize requires restart"]);
    assert_eq!(main_status(&status).restart_count, 1);
    assert_eq!(resources(&main_status(&status)), large());
    assert_eq!(condition(&status, "Ready"), "True");
}

#[test]
fn a_failed_resize_is_reported_and_tried_again() {
    let mut sim = Simulation::new(one(json!({ "resources": small() })));
    sim.settle();
    sim.broken_resize = true;
    resized(&mut sim, &large());
    let status = sim.settle();
    let conditions = status.conditions.clone().expect("conditions");
    let progress = conditions.iter().find(|condition| condition.type_ == "PodResizeInProgress").expect("a condition");
    assert_eq!((progress.status.as_str(), progress.reason.as_deref()), ("True", Some("Error")));
    assert_eq!(resources(&main_status(&status)), small());
    assert_eq!(condition(&status, "Ready"), "True");
    sim.broken_resize = false;
    sim.pass(60);
    assert_eq!(resources(&main_status(&sim.settle())), large());
}

#[test]
fn a_container_that_does_not_run_starts_with_its_new_resources() {
    let mut sim = Simulation::new(one(json!({ "resources": small() })));
    sim.fate("main", Fate::Exits(1));
    sim.settle();
    resized(&mut sim, &large());
    let status = sim.settle();
    assert_eq!(resources(&main_status(&status)), large(), "it does not run, so it has what it will start with");
    sim.fate("main", Fate::Runs);
    sim.pass(400);
    let status = sim.settle();
    assert_eq!(resources(&main_status(&status)), large());
    assert_eq!(condition(&status, "PodResizeInProgress"), "");
}

#[test]
fn a_pending_resize_is_a_condition_until_it_is_over() {
    let mut sim = Simulation::new(one(json!({ "resources": small() })));
    sim.settle();
    let message = "Node didn't have enough resource".to_owned();
    sim.memory.pending_resize = Some(PendingResize { reason: PendingReason::Deferred, message: message.clone() });
    let status = sim.settle();
    let pending = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodResizePending");
    let pending = pending.map(|condition| (condition.status.as_str(), condition.reason.clone(), &condition.message));
    assert_eq!(pending, Some(("True", Some("Deferred".to_owned()), &Some(message))));
    sim.memory.pending_resize = None;
    assert_eq!(condition(&sim.settle(), "PodResizePending"), "");
}

#[test]
fn the_plan_sees_the_resources_that_were_given() {
    let spec = std::sync::Arc::new(one(json!({ "resources": large() })));
    let reported = |resources: Value| -> PodStatus {
        let status = json!({ "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "resources": resources });
        serde_json::from_value(json!({ "containerStatuses": [status] })).expect("a status")
    };
    assert_eq!(adopted(&spec, &PodStatus::default()), wanted(&spec), "a new pod gets what it asks for");
    let before = adopted(&spec, &reported(small()));
    assert_ne!(before, wanted(&spec), "an earlier agent had not given the new resources");
    let given = with_allocated(&spec, &before);
    assert_eq!(json!(given.spec.as_ref().expect("a spec").containers[0].resources), small());
    assert!(std::sync::Arc::ptr_eq(&spec, &with_allocated(&spec, &wanted(&spec))));
}
