//! Deployments over REST: created, scaled, rolled and deleted. Each has one client, which names the resource version
//! that it read in each update. So a write with an unknown outcome has no effect after a later one was acknowledged.

use std::time::Duration;

use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use super::Context;
use super::rest::{Credentials, Failure, Rest};
use crate::cluster::IMAGES;
use crate::history::{Answer, MAIN, Request, Wanted};

pub const COLLECTION: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const SERVICE: &str = "chaos";
/// Label of every object of the workload.
pub const LABEL: &str = "chaos";
/// Environment variable whose value differs between templates.
pub const TEMPLATE: &str = "TEMPLATE";
const DEADLINE: Duration = Duration::from_secs(4);
/// Mean pause between two writes of a client.
const PAUSE: Duration = Duration::from_millis(1500);
/// Number of Deployments that a client has at a time.
const SLOTS: usize = 2;
const MOST_REPLICAS: u64 = 4;

/// Service whose endpoints are the ready pods of all Deployments.
#[must_use]
pub fn service() -> Json {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"clusterIP": "None", "selector": {LABEL: "yes"}, "ports": [{"name": "http", "port": 80}]},
    })
}

/// Runs until the clients are stopped.
pub async fn run(context: Context, credentials: Credentials, name: String, seed: u64) -> Vec<Request> {
    let mut rng = StdRng::seed_from_u64(seed);
    let member = rng.random_range(0..context.layout.places.len());
    let mut client = Client {
        rest: Rest::new(context.layout.clone(), credentials, member),
        context: Context { pause: PAUSE, ..context },
        name,
        made: 0,
        templates: 0,
        slots: vec![None; SLOTS],
        requests: Vec::new(),
    };
    while client.context.pause(&mut rng).await {
        client.step(&mut rng).await;
    }
    client.requests
}

/// A Deployment that exists or may exist.
#[derive(Clone)]
struct Slot {
    deployment: String,
    /// Initial desired state.
    first: Wanted,
    /// The outcome of the creation is unknown, so the Deployment may still appear.
    is_doubtful: bool,
}

struct Client {
    context: Context,
    rest: Rest,
    name: String,
    /// Number of Deployments created so far.
    made: usize,
    /// Number of templates created so far.
    templates: usize,
    slots: Vec<Option<Slot>>,
    requests: Vec<Request>,
}

impl Client {
    async fn step(&mut self, rng: &mut StdRng) {
        let slot = rng.random_range(0..SLOTS);
        let Some(Slot { deployment, first, is_doubtful }) = self.slots[slot].clone() else {
            self.made += 1;
            let deployment = format!("{}-{}", self.name, self.made);
            let first = Wanted { replicas: rng.random_range(1..=MOST_REPLICAS), template: self.template() };
            return self.create(slot, deployment, first, rng).await;
        };
        let path = format!("{COLLECTION}/{deployment}");
        let read = self.rest.request(Method::GET, &path, None, DEADLINE).await;
        let object = match read {
            Ok((StatusCode::OK, object)) => object,
            // The Deployment may appear at any later time, so the client leaves it alone.
            Ok((StatusCode::NOT_FOUND, _)) if is_doubtful => {
                self.slots[slot] = None;
                return;
            }
            Ok((StatusCode::NOT_FOUND, _)) => return self.create(slot, deployment, first, rng).await,
            _ => return self.move_on(rng),
        };
        match rng.random_range(0..100) {
            0..10 => {
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
                let answer = self.write(Method::DELETE, &path, &options, &deployment, None, rng).await;
                if !matches!(answer, Answer::Refused { .. }) {
                    self.slots[slot] = None;
                }
            }
            drawn => {
                let Some(mut wanted) = wanted_of(&object) else { return };
                if drawn < 55 {
                    wanted.replicas = rng.random_range(0..=MOST_REPLICAS);
                } else {
                    wanted.template = self.template();
                }
                let image = IMAGES.choose(rng).copied().unwrap_or_default();
                let object = changed(object, &wanted, (drawn >= 55).then_some(image));
                self.write(Method::PUT, &path, &object, &deployment, Some(wanted), rng).await;
            }
        }
    }

    fn template(&mut self) -> String {
        self.templates += 1;
        format!("{}.{}", self.name, self.templates)
    }

    async fn create(&mut self, slot: usize, deployment: String, first: Wanted, rng: &mut StdRng) {
        let object = created(&deployment, &first);
        let answer = self.write(Method::POST, COLLECTION, &object, &deployment, Some(first.clone()), rng).await;
        let is_doubtful = matches!(answer, Answer::Unknown { .. });
        self.slots[slot] = Some(Slot { deployment, first, is_doubtful });
    }

    async fn write(
        &mut self,
        method: Method,
        path: &str,
        body: &Json,
        deployment: &str,
        wanted: Option<Wanted>,
        rng: &mut StdRng,
    ) -> Answer {
        let (called, member) = (self.context.clock.now(), self.rest.member);
        let response = self.rest.request(method, path, Some(body), DEADLINE).await;
        let returned = self.context.clock.now();
        let answer = match response {
            Ok((status, _)) if status.is_success() => Answer::Done,
            Ok((status, body)) => {
                let reason = format!("{status}: {}", body["message"].as_str().unwrap_or_default());
                if status.is_server_error() { Answer::Unknown { reason } } else { Answer::Refused { reason } }
            }
            Err(Failure::NotSent(reason)) => Answer::Refused { reason },
            Err(Failure::Lost(reason)) => Answer::Unknown { reason },
        };
        if answer != Answer::Done {
            self.move_on(rng);
        }
        self.requests.push(Request {
            client: self.name.clone(),
            member,
            called,
            returned,
            deployment: deployment.to_owned(),
            wanted,
            answer: answer.clone(),
        });
        answer
    }

    fn move_on(&mut self, rng: &mut StdRng) {
        let members = self.context.layout.places.len();
        let member = (self.rest.member + rng.random_range(1..members.max(2))) % members;
        self.rest.move_to(member);
    }
}

fn created(name: &str, wanted: &Wanted) -> Json {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {LABEL: "yes"}},
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, LABEL: "yes"}},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{
                        "name": MAIN,
                        "image": IMAGES[0],
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
                        "env": [{"name": TEMPLATE, "value": wanted.template}],
                    }],
                },
            },
        },
    })
}

fn changed(mut object: Json, wanted: &Wanted, image: Option<&str>) -> Json {
    object["spec"]["replicas"] = wanted.replicas.into();
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!([{"name": TEMPLATE, "value": wanted.template}]);
    if let Some(image) = image {
        container["image"] = image.into();
    }
    object
}

/// Desired state in a Deployment's spec.
#[must_use]
pub fn wanted_of(deployment: &Json) -> Option<Wanted> {
    let spec = &deployment["spec"];
    Some(Wanted { replicas: spec["replicas"].as_u64()?, template: template_of(&spec["template"]["spec"])? })
}

/// Name of the template of a pod's spec.
#[must_use]
pub fn template_of(pod_spec: &Json) -> Option<String> {
    let env = pod_spec["containers"][0]["env"].as_array()?;
    let variable = env.iter().find(|variable| variable["name"] == TEMPLATE)?;
    variable["value"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_desired_state_is_read_from_a_deployment() {
        let first = Wanted { replicas: 3, template: "d0.1".to_owned() };
        let object = created("d0-1", &first);
        assert_eq!(wanted_of(&object), Some(first));
        let second = Wanted { replicas: 0, template: "d0.2".to_owned() };
        let rolled = changed(object, &second, Some(IMAGES[1]));
        assert_eq!(wanted_of(&rolled), Some(second));
        assert_eq!(rolled["spec"]["template"]["spec"]["containers"][0]["image"], IMAGES[1]);
    }
}
