//! The node API: health, logs, streams, connections to pods, and the pods of this node. Only clients in the group `system:masters` may use it.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::AgentConfig;
use crate::plan::{self, ContainerRecord, Observed};
use crate::pods::PodTable;
use crate::runtime::{LogOptions, Runtime};
use crate::streams::{self, Clients, Refusal};
use crate::{AgentError, tls};

const ALLOWED_GROUP: &str = "system:masters";
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pods: PodTable,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clients: Clients,
    /// The connections to pods that the proxies of the masters use.
    pub(crate) connections: Clients,
    pub(crate) pod_tls: TlsConnector,
}

impl Shared {
    /// # Errors
    /// The refusal of a request for a pod that this node does not have.
    pub(crate) fn find_pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let pods = self.pods.load();
        let mut pods = pods.values();
        let found = pods.find(|pod| {
            pod.metadata.name.as_deref() == Some(name) && pod.metadata.namespace.as_deref() == Some(namespace)
        });
        found.cloned().ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))
    }
}

pub(crate) struct NodeApi {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pods: PodTable,
    runtime: Arc<dyn Runtime>,
}

impl NodeApi {
    pub(crate) fn new(
        config: &AgentConfig,
        listener: TcpListener,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, AgentError> {
        let tls = tls::server(&config.client_ca_pem, Arc::clone(&config.serving)).map_err(AgentError::Tls)?;
        Ok(NodeApi { listener, acceptor: TlsAcceptor::from(Arc::new(tls)), pods: PodTable::default(), runtime })
    }

    /// Returns the table of pods that the API shows. The pod loop fills it.
    pub(crate) fn pods(&self) -> PodTable {
        Arc::clone(&self.pods)
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let listen = |source| AgentError::Listen { address: "the given socket".to_owned(), source };
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(listen)?;
        let connections = TaskTracker::new();
        let clients = |maximum| Clients::new(connections.clone(), shutdown.clone(), maximum);
        let shared = Shared {
            pods: self.pods,
            runtime: self.runtime,
            clients: clients(streams::MAX_CLIENTS),
            connections: clients(streams::MAX_CONNECTIONS),
            pod_tls: streams::connector(),
        };
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/pods", get(list_pods))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
            .route("/exec/{namespace}/{pod}/{container}", get(streams::exec).post(streams::exec))
            .route("/attach/{namespace}/{pod}/{container}", get(streams::attach).post(streams::attach))
            .route("/portForward/{namespace}/{pod}", get(streams::port_forward).post(streams::port_forward))
            .route("/dial/{namespace}/{pod}/{port}", get(streams::dial))
            .with_state(shared);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Most likely the process is out of file descriptors. Some may be free a moment later.
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, router, shutdown) = (self.acceptor.clone(), router.clone(), shutdown.clone());
            connections.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = serve(acceptor, router, stream) => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

async fn serve(acceptor: TlsAcceptor, router: Router, stream: tokio::net::TcpStream) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(error = %error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let allowed = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).is_some_and(|der| is_allowed(der));
    let router = if allowed { router } else { Router::new().fallback(forbidden) };
    let service = TowerToHyperService::new(router);
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error = %error, "a connection to the node API failed");
    }
}

/// Whether a verified certificate has the group that may use the node API.
fn is_allowed(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        certificate.subject().iter_organization().any(|group| group.as_str() == Ok(ALLOWED_GROUP))
    })
}

async fn forbidden() -> (StatusCode, &'static str) {
    (StatusCode::FORBIDDEN, "Forbidden: the node API is for the masters\n")
}

async fn list_pods(State(shared): State<Shared>) -> Json<serde_json::Value> {
    let pods = shared.pods.load();
    let items: Vec<_> = pods.values().map(|pod| pod.as_ref()).collect();
    Json(serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LogQuery {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<u64>,
}

async fn container_logs(
    State(shared): State<Shared>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let pod = shared.find_pod(&namespace, &name)?;
    if plan::find_container(&pod, &container).is_none() {
        let message = format!("container \"{container}\" not found in pod \"{name}\"");
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    }
    let observed = Arc::clone(&shared.runtime.subscribe(&plan::pod_ref(&pod).uid).borrow());
    let record = choose(&pod, &observed, &container, query.previous).map_err(|which| {
        let message = match which {
            "" => {
                let why = waiting(&pod, &container);
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}")
            }
            which => format!("{which}container \"{container}\" in pod \"{name}\" not found"),
        };
        Refusal::new(StatusCode::BAD_REQUEST, message)
    })?;
    let ago =
        query.since_seconds.and_then(|seconds| Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok());
    let options = LogOptions {
        follow: query.follow && record.is_running(),
        tail_lines: query.tail_lines,
        since: query.since_time.or(ago),
        timestamps: query.timestamps,
    };
    match shared.runtime.logs(&record.id, options).await {
        Ok(lines) => {
            let limited = limit(lines.map_err(std::io::Error::other).boxed(), query.limit_bytes);
            let body = Body::from_stream(limited);
            Ok(([(axum::http::header::CONTENT_TYPE, "text/plain")], body).into_response())
        }
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// Chooses the run of the container whose log is returned. Fails with the kubelet's description of the container when
/// no such run exists.
///
/// While a container waits to be restarted, its last run is both the latest one and the previous one, which `lastState`
/// shows.
fn choose<'a>(
    pod: &Pod,
    observed: &'a Observed,
    name: &str,
    previous: bool,
) -> Result<&'a ContainerRecord, &'static str> {
    let latest = observed.latest(name).filter(|record| record.started_at().is_some() || record.exit().is_some());
    let latest = latest.ok_or("")?;
    if !previous {
        return Ok(latest);
    }
    let ending = pod.metadata.deletion_timestamp.is_some();
    let again = plan::find_container(pod, name).zip(latest.exit()).is_some_and(|((container, kind), exit)| {
        !ending && plan::restarts(plan::restart_policy(pod, &container, kind), exit.code == 0)
    });
    if again { Ok(latest) } else { observed.ended_before(name, latest.attempt).ok_or("previous terminated ") }
}

fn waiting(pod: &Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let lists = [
        status.and_then(|status| status.init_container_statuses.as_ref()),
        status.and_then(|status| status.container_statuses.as_ref()),
        status.and_then(|status| status.ephemeral_container_statuses.as_ref()),
    ];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == container);
    let reason = found.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    reason.unwrap_or_else(|| "ContainerCreating".to_owned())
}

type Chunks = futures::stream::BoxStream<'static, std::io::Result<Bytes>>;

/// Ends a stream after `bytes` bytes, without waiting for another chunk.
fn limit(chunks: Chunks, bytes: Option<u64>) -> Chunks {
    let Some(bytes) = bytes else { return chunks };
    let left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let cut = futures::stream::unfold((chunks, left), async |(mut chunks, left)| {
        if left == 0 {
            return None;
        }
        let chunk = chunks.next().await?.map(|chunk| chunk.slice(..chunk.len().min(left)));
        let left = left - chunk.as_ref().map_or(0, Bytes::len);
        Some((chunk, (chunks, left)))
    });
    cut.boxed()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;
    use crate::plan::{Exit, RunState};

    fn pod(policy: &str) -> Pod {
        let container = k8s_openapi::api::core::v1::Container { name: "c".to_owned(), ..Default::default() };
        let spec =
            PodSpec { containers: vec![container], restart_policy: Some(policy.to_owned()), ..PodSpec::default() };
        Pod { spec: Some(spec), ..Pod::default() }
    }

    fn record(attempt: u32, running: bool) -> ContainerRecord {
        let at = Timestamp::UNIX_EPOCH;
        let exit =
            Exit { started_at: Some(at), finished_at: at, code: 1, reason: "Error".to_owned(), message: String::new() };
        ContainerRecord {
            id: attempt.to_string(),
            name: "c".to_owned(),
            attempt,
            sandbox_id: String::new(),
            image: String::new(),
            image_id: String::new(),
            state: if running { RunState::Running { started_at: at } } else { RunState::Exited(exit) },
        }
    }

    #[tokio::test]
    async fn a_limited_stream_ends_with_its_last_byte() {
        let text = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let cases = [(0, ""), (2, "ab"), (3, "abc"), (5, "abcde")];
        for (bytes, expected) in cases {
            // The stream stays open after its two chunks.
            let chunks = futures::stream::iter([text("abc"), text("de")]).chain(futures::stream::pending());
            let read: Vec<Bytes> = limit(chunks.boxed(), Some(bytes)).try_collect().await.expect("no error");
            assert_eq!(read.concat(), expected.as_bytes(), "{bytes}");
        }
    }

    #[test]
    fn the_previous_run_is_the_one_that_last_state_shows() {
        // Restart policy, runs (true for a running one), and the attempts chosen without and with `previous`.
        type Attempt = Result<u32, &'static str>;
        let cases: [(&str, &[bool], Attempt, Attempt); 6] = [
            ("Always", &[], Err(""), Err("")),
            ("Always", &[true], Ok(0), Err("previous terminated ")),
            ("Always", &[false], Ok(0), Ok(0)),
            ("Always", &[false, false], Ok(1), Ok(1)),
            ("Always", &[false, true], Ok(1), Ok(0)),
            ("Never", &[false], Ok(0), Err("previous terminated ")),
        ];
        for (policy, runs, latest, previous) in cases {
            let containers = (0..).zip(runs).map(|(attempt, running)| record(attempt, *running)).collect();
            let observed = Observed { containers, ..Observed::default() };
            for (asked, expected) in [(false, latest), (true, previous)] {
                let chosen = choose(&pod(policy), &observed, "c", asked).map(|record| record.attempt);
                assert_eq!(chosen, expected, "{policy} {runs:?}, previous: {asked}");
            }
        }
    }
}
