//! A small correct workload, in which the tests of the checks plant faults.

use crate::history::{
    Answer, ApiSeen, Container, ContainerStatus, DeploymentSeen, EndpointSeen, PodSeen, Request, Settled, Start, Wanted,
};

/// Name of a fault, and a function that plants it.
pub type Plant = (&'static str, fn(&mut Settled));

pub fn wanted(replicas: u64) -> Wanted {
    Wanted { replicas, template: "t1".to_owned() }
}

pub fn request(called: u64, wanted: Option<Wanted>, answer: Answer) -> Request {
    let (client, deployment) = ("d0".to_owned(), "d0-1".to_owned());
    Request { client, member: 0, called, returned: called + 5, deployment, wanted, answer }
}

pub fn unknown() -> Answer {
    Answer::Unknown { reason: "no answer".to_owned() }
}

/// One Deployment of two pods, each on a worker of its own.
pub fn requests() -> Vec<Request> {
    vec![request(10, Some(wanted(1)), Answer::Done), request(20, Some(wanted(2)), Answer::Done)]
}

fn pod(worker: usize) -> PodSeen {
    PodSeen {
        name: format!("d0-1-{worker}"),
        uid: format!("u{worker}"),
        deployment: "d0-1".to_owned(),
        template: "t1".to_owned(),
        node: Some(crate::history::node_name(worker)),
        is_deleting: false,
        is_ready: true,
        phase: "Running".to_owned(),
        address: Some(format!("10.0.0.{worker}")),
        containers: vec![ContainerStatus {
            name: "main".to_owned(),
            id: format!("hollow://c{worker}"),
            restarts: 0,
            is_ready: true,
            running_since: Some("2026-11-30T10:00:00Z".to_owned()),
        }],
    }
}

fn containers(worker: usize) -> Vec<Container> {
    let container = |name: &str, id: String| Container {
        uid: format!("u{worker}"),
        name: name.to_owned(),
        id,
        attempt: 0,
        is_running: true,
        started_at: "2026-11-30T10:00:00.25Z".to_owned(),
        address: Some(format!("10.0.0.{worker}")),
    };
    vec![container("POD", format!("s{worker}")), container("main", format!("c{worker}"))]
}

pub fn settled() -> Settled {
    let deployment = DeploymentSeen {
        name: "d0-1".to_owned(),
        wanted: wanted(2),
        generation: 2,
        observed_generation: 2,
        replicas: 2,
        updated: 2,
        ready: 2,
        available: 2,
    };
    let endpoint =
        |worker: usize| EndpointSeen { uid: format!("u{worker}"), address: format!("10.0.0.{worker}"), is_ready: true };
    Settled {
        took: 1_000_000,
        api: ApiSeen {
            deployments: vec![deployment],
            pods: vec![pod(0), pod(1)],
            endpoints: vec![endpoint(0), endpoint(1)],
            nodes: vec![("w1".to_owned(), true), ("w2".to_owned(), true)],
        },
        machines: vec![containers(0), containers(1)],
    }
}

pub fn start(worker: usize) -> Start {
    Start {
        worker,
        uid: format!("u{worker}"),
        container: "main".to_owned(),
        id: format!("c{worker}"),
        at: "2026-11-30T10:00:00.25Z".to_owned(),
    }
}
