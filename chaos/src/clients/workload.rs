//! Reads the state of the workload from the API: samples during the schedule, and everything at the end.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;
use tokio::time::{Instant, sleep};

use super::Context;
use super::deployments::{self, LABEL, SERVICE, template_of, wanted_of};
use super::rest::{Credentials, Rest};
use crate::history::{ApiSeen, ContainerStatus, DeploymentSeen, EndpointSeen, PodSample, PodSeen, Sample};

const EVERY: Duration = Duration::from_millis(800);
const DEADLINE: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_millis(200);
/// Time within which the Service must be created.
const MADE_WITHIN: Duration = Duration::from_secs(20);
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Creates the Service that selects the pods of all Deployments.
///
/// # Errors
/// When the quorum does not accept it.
pub async fn make_service(context: &Context, credentials: Credentials) -> anyhow::Result<()> {
    let mut rest = Rest::new(context.layout.clone(), credentials, 0);
    let deadline = Instant::now() + MADE_WITHIN;
    loop {
        let answer = rest.request(Method::POST, SERVICES, Some(&deployments::service()), DEADLINE).await;
        match answer {
            Ok((StatusCode::CREATED | StatusCode::CONFLICT, _)) => return Ok(()),
            other => ensure!(Instant::now() < deadline, "the Service cannot be created: {other:?}"),
        }
        sleep(RETRY).await;
    }
}

/// Samples endpoints and pods until the clients are stopped. Members that do not answer are left out.
pub async fn sample(context: Context, credentials: Credentials, seed: u64) -> Vec<Sample> {
    let mut rng = StdRng::seed_from_u64(seed);
    let members = context.layout.places.len();
    let mut rest = Rest::new(context.layout.clone(), credentials, 0);
    let mut samples = Vec::new();
    while context.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let taken = async {
            let named: Vec<String> = endpoints(&mut rest).await?.into_iter().map(|endpoint| endpoint.uid).collect();
            Ok::<_, anyhow::Error>((named, pods(&mut rest).await?))
        };
        match taken.await {
            Ok((named, pods)) => {
                let pods = pods.into_iter().map(|pod| PodSample {
                    uid: pod.uid,
                    node: pod.node,
                    restarts: pod.containers.into_iter().map(|status| (status.name, status.restarts)).collect(),
                });
                samples.push(Sample { at: context.clock.now(), named, pods: pods.collect() });
            }
            Err(_) => rest.move_to(rng.random_range(0..members)),
        }
    }
    samples
}

/// Returns the whole state of the workload in the API.
///
/// # Errors
/// When a list request gets no answer.
pub async fn all(rest: &mut Rest) -> anyhow::Result<ApiSeen> {
    let deployments = list(rest, &format!("{}?labelSelector={LABEL}%3Dyes", deployments::COLLECTION)).await?;
    let nodes = list(rest, "/api/v1/nodes").await?;
    Ok(ApiSeen {
        deployments: deployments.iter().map(deployment).collect::<anyhow::Result<_>>()?,
        endpoints: endpoints(rest).await?,
        pods: pods(rest).await?,
        nodes: nodes.iter().map(node).collect(),
    })
}

async fn list(rest: &mut Rest, path: &str) -> anyhow::Result<Vec<Json>> {
    let answer = rest.request(Method::GET, path, None, DEADLINE).await;
    let (status, mut list) = answer.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    ensure!(status == StatusCode::OK, "{path}: {status}: {list}");
    match list["items"].take() {
        Json::Array(items) => Ok(items),
        other => anyhow::bail!("{path}: not a list: {other}"),
    }
}

async fn pods(rest: &mut Rest) -> anyhow::Result<Vec<PodSeen>> {
    let items = list(rest, &format!("/api/v1/namespaces/default/pods?labelSelector={LABEL}%3Dyes")).await?;
    Ok(items.iter().map(pod).collect())
}

async fn endpoints(rest: &mut Rest) -> anyhow::Result<Vec<EndpointSeen>> {
    let selector = format!("labelSelector=kubernetes.io%2Fservice-name%3D{SERVICE}");
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?{selector}");
    let slices = list(rest, &path).await?;
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    Ok(endpoints.map(endpoint).collect())
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_true(conditions: &Json, kind: &str) -> bool {
    let mut all = conditions.as_array().into_iter().flatten();
    all.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn deployment(object: &Json) -> anyhow::Result<DeploymentSeen> {
    let status = &object["status"];
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    Ok(DeploymentSeen {
        name: text(&object["metadata"]["name"]),
        wanted: wanted_of(object).with_context(|| format!("an unknown Deployment: {object}"))?,
        generation: object["metadata"]["generation"].as_u64().unwrap_or(0),
        observed_generation: count("observedGeneration"),
        replicas: count("replicas"),
        updated: count("updatedReplicas"),
        ready: count("readyReplicas"),
        available: count("availableReplicas"),
    })
}

fn pod(object: &Json) -> PodSeen {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let statuses = status["containerStatuses"].as_array().into_iter().flatten();
    let containers = statuses.map(|status| ContainerStatus {
        name: text(&status["name"]),
        id: text(&status["containerID"]),
        restarts: status["restartCount"].as_u64().unwrap_or(0),
        is_ready: status["ready"] == true,
        running_since: status["state"]["running"]["startedAt"].as_str().map(str::to_owned),
    });
    PodSeen {
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        deployment: text(&metadata["labels"]["app"]),
        template: template_of(&object["spec"]).unwrap_or_default(),
        node: object["spec"]["nodeName"].as_str().map(str::to_owned),
        is_deleting: metadata["deletionTimestamp"].is_string(),
        is_ready: is_true(&status["conditions"], "Ready"),
        phase: text(&status["phase"]),
        address: status["podIP"].as_str().map(str::to_owned),
        containers: containers.collect(),
    }
}

fn endpoint(endpoint: &Json) -> EndpointSeen {
    EndpointSeen {
        uid: text(&endpoint["targetRef"]["uid"]),
        address: text(&endpoint["addresses"][0]),
        is_ready: endpoint["conditions"]["ready"] == true,
    }
}

fn node(object: &Json) -> (String, bool) {
    let is_tainted = object["spec"]["taints"].as_array().is_some_and(|taints| !taints.is_empty());
    (text(&object["metadata"]["name"]), is_true(&object["status"]["conditions"], "Ready") && !is_tainted)
}
