//! A server that answers from a table, records the requests, and hands upgraded connections to a test.

use std::convert::Infallible;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quorate_qctl::{Capture, Environment, Streams};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

type Answer = dyn Fn(&Recorded) -> Option<(u16, Value)> + Send + Sync;
type Serve = dyn Fn(Recorded, Socket) -> BoxFuture<'static, ()> + Send + Sync;

/// What the server does besides discovery.
#[derive(Clone)]
pub struct Behaviour {
    /// Answers plain requests; `None` is a 404.
    pub answer: Arc<Answer>,
    /// The WebSocket protocol that the server speaks.
    pub protocol: &'static str,
    pub serve: Arc<Serve>,
}

impl Behaviour {
    pub fn answers(answer: impl Fn(&Recorded) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        let serve = |_, _| -> BoxFuture<'static, ()> { Box::pin(async {}) };
        Behaviour { answer: Arc::new(answer), protocol: "v5.channel.k8s.io", serve: Arc::new(serve) }
    }

    pub fn serves(
        mut self,
        serve: impl Fn(Recorded, Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        self.serve = Arc::new(serve);
        self
    }
}

/// Resources of discovery: group, kind, plural, short name, whether namespaced.
const RESOURCES: [(&str, &str, &str, &str, bool); 8] = [
    ("", "Pod", "pods", "po", true),
    ("", "Service", "services", "svc", true),
    ("", "ConfigMap", "configmaps", "cm", true),
    ("", "Secret", "secrets", "", true),
    ("", "ServiceAccount", "serviceaccounts", "sa", true),
    ("apps", "Deployment", "deployments", "deploy", true),
    ("batch", "CronJob", "cronjobs", "cj", true),
    ("batch", "Job", "jobs", "", true),
];

fn discovery(core: bool) -> Value {
    let mut groups = std::collections::BTreeMap::<&str, Vec<Value>>::new();
    for (group, kind, plural, short, namespaced) in RESOURCES.iter().filter(|(group, ..)| group.is_empty() == core) {
        groups.entry(group).or_default().push(json!({
            "resource": plural, "responseKind": {"kind": kind}, "singularResource": kind.to_lowercase(),
            "scope": if *namespaced { "Namespaced" } else { "Cluster" }, "shortNames": [short],
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }));
    }
    let items = groups.into_iter().map(|(group, resources)| {
        json!({"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]})
    });
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items.collect::<Vec<_>>()})
}

/// A running server; dropping it stops it.
pub struct Server {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::<Mutex<Vec<Recorded>>>::default();
        let log = requests.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (behaviour, log) = (behaviour.clone(), log.clone());
                let service =
                    hyper::service::service_fn(move |request| answer(request, behaviour.clone(), log.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                connections.spawn(connection);
            }
        });
        Server { address, requests, task }
    }

    /// Runs `qctl` against this server.
    pub async fn qctl(&self, args: &[&str], input: &str) -> Ran {
        self.run(args, input).end().await
    }

    /// Starts a command that runs until something happens.
    pub fn begin(&self, args: &[&str]) -> Running {
        self.run(args, "")
    }

    fn run(&self, args: &[&str], input: &str) -> Running {
        let (streams, output, errors) = Streams::captured(input);
        let url = format!("http://{}", self.address);
        let words: Vec<OsString> = ["qctl", "--server", &url].iter().chain(args).map(Into::into).collect();
        let (stop, stopped) = oneshot::channel::<()>();
        // A command has a runtime of its own, as in the program.
        let task = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let code = runtime.block_on(async {
                tokio::select! {
                    code = quorate_qctl::execute(words, streams, Environment::default()) => Some(code),
                    _ = stopped => None,
                }
            });
            runtime.shutdown_background();
            code
        });
        Running { output, errors, task, _stop: stop }
    }

    /// Returns the requests so far, without those of discovery.
    pub fn requests(&self) -> Vec<Recorded> {
        let all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|request| !matches!(request.path.as_str(), "/api" | "/apis")).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A command that runs; dropping it stops it.
pub struct Running {
    output: Capture,
    errors: Capture,
    task: JoinHandle<Option<u8>>,
    _stop: oneshot::Sender<()>,
}

impl Running {
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits until the output satisfies `check`.
    pub async fn until<T>(&self, check: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = check(&self.output()) {
                return found;
            }
            let failure = || format!("{} {}", self.output(), self.errors.text());
            assert!(Instant::now() < deadline && !self.task.is_finished(), "{}", failure());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn end(self) -> Ran {
        let code = self.task.await.expect("no panic").expect("an exit code");
        Ran { code, stdout: self.output.text(), stderr: self.errors.text() }
    }
}

/// The outcome of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: u8,
    pub stdout: String,
    pub stderr: String,
}

async fn answer(
    mut request: Request<Incoming>,
    behaviour: Behaviour,
    log: Arc<Mutex<Vec<Recorded>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let recorded = Recorded {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(recorded.clone());
    let missing = || {
        let message = format!("{} not found", recorded.path.rsplit('/').next().unwrap_or_default());
        (404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": message}))
    };
    let (code, object) = match (recorded.path.as_str(), upgrade, key) {
        ("/api", ..) => (200, discovery(true)),
        ("/apis", ..) => (200, discovery(false)),
        (_, Some(upgrade), Some(accept)) if (behaviour.answer)(&recorded).is_none() => {
            let served = behaviour.clone();
            tokio::spawn(async move {
                let upgraded = upgrade.await.expect("an upgraded connection");
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                (served.serve)(recorded, socket).await;
            });
            let response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, accept)
                .header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(behaviour.protocol))
                .body(Full::default());
            return Ok(response.expect("a response"));
        }
        _ => (behaviour.answer)(&recorded).unwrap_or_else(missing),
    };
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Full::from(object.to_string())).expect("a response"))
}
