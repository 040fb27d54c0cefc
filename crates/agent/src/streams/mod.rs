//! Exec, attach and port-forward of the node API. A request is checked and its protocol agreed on (`negotiate`), its
//! connection becomes numbered streams (`link`, carried by `websocket` or `spdy`), and these are connected to a process
//! (`command`) or to a pod's ports (`forward`).

mod command;
mod forward;
mod link;
mod negotiate;
mod spdy;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::command::Roles;
use self::link::Link;
use self::negotiate::{Agreed, Carrier, Purpose};
use crate::plan::{self, PodRef};
use crate::runtime::{RuntimeError, Session, Streams as ProcessStreams};
use crate::server::{Shared, refusal};

/// Maximum number of clients at a time.
const MAX_CLIENTS: usize = 256;
/// Interval of pings, which find clients that are gone.
const PING_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(30) };
/// Time for a client to close its connection when it has everything.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Memory of a tunnel between the messages of a WebSocket and SPDY, in bytes.
const TUNNEL_BYTES: usize = 64 * 1024;

/// The clients that are being served.
#[derive(Clone)]
pub(crate) struct Clients {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    permits: Arc<Semaphore>,
}

impl Clients {
    pub(crate) fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Clients { tasks, shutdown, permits: Arc::new(Semaphore::new(MAX_CLIENTS)) }
    }

    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }
}

type Options = Query<Vec<(String, String)>>;

fn is_set(options: &Options, name: &str) -> bool {
    options.iter().any(|(option, value)| option == name && matches!(value.as_str(), "true" | "1"))
}

fn process_streams(options: &Options) -> ProcessStreams {
    let [stdin, stdout, stderr, tty] = ["stdin", "stdout", "stderr", "tty"].map(|name| is_set(options, name));
    // A terminal has one output.
    ProcessStreams { stdin, stdout, stderr: stderr && !tty, tty }
}

/// `/exec/{namespace}/{pod}/{container}`
pub(crate) async fn exec(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    options: Options,
    request: Request,
) -> Response {
    let command: Vec<String> =
        options.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect();
    let streams = process_streams(&options);
    let id = match running(&shared, &namespace, &pod, &container) {
        Ok(id) => id,
        Err((code, message)) => return refusal(code, message),
    };
    let runtime = Arc::clone(&shared.runtime);
    let start = async move { runtime.start_exec(&id, &command, streams).await };
    upgrade(&shared.clients, Purpose::Command, request, move |io, agreed| process(io, agreed, streams, start))
}

/// `/attach/{namespace}/{pod}/{container}`
pub(crate) async fn attach(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    options: Options,
    request: Request,
) -> Response {
    let id = match running(&shared, &namespace, &pod, &container) {
        Ok(id) => id,
        Err((code, message)) => return refusal(code, message),
    };
    let streams = process_streams(&options);
    let runtime = Arc::clone(&shared.runtime);
    let object = shared.pods.load_full();
    let spec = object.values().find(|object| is(object, &namespace, &pod));
    if let Some((spec, _)) = spec.and_then(|object| plan::find_container(object, &container))
        && streams.stdin
        && spec.stdin != Some(true)
    {
        let message = format!("container {container} of pod {pod} does not have stdin attached");
        return refusal(StatusCode::BAD_REQUEST, message);
    }
    let start = async move { runtime.attach(&id, streams).await };
    upgrade(&shared.clients, Purpose::Command, request, move |io, agreed| process(io, agreed, streams, start))
}

/// `/portForward/{namespace}/{pod}`
pub(crate) async fn port_forward(
    State(shared): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    options: Options,
    request: Request,
) -> Response {
    let Some(pod) = find(&shared, &namespace, &pod) else {
        return refusal(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found"));
    };
    let ports = forward::Ports { runtime: Arc::clone(&shared.runtime), pod };
    let values = options.iter().filter(|(name, _)| name == "ports").map(|(_, value)| value.as_str());
    let wanted = forward::parse_ports(values);
    // Only the channels of a WebSocket take their ports from the query.
    if let (Ok(Agreed { carrier: Carrier::Channels(_), .. }), Err(message)) =
        (negotiate::negotiate(Purpose::Forward, request.headers()), &wanted)
    {
        return refusal(StatusCode::BAD_REQUEST, message.clone());
    }
    upgrade(&shared.clients, Purpose::Forward, request, move |io, agreed| async move {
        let (link, end) = link::link();
        match agreed.carrier {
            Carrier::Channels(channels) => {
                let wanted = wanted.unwrap_or_default();
                tokio::join!(websocket::drive(io, channels, None, end), forward::channels(link, ports, wanted));
            }
            Carrier::Spdy => {
                tokio::join!(spdy::drive(io, end), forward::spdy(link, ports));
            }
            Carrier::TunnelledSpdy => {
                let (outer, inner) = tokio::io::duplex(TUNNEL_BYTES);
                tokio::join!(websocket::tunnel(io, outer), spdy::drive(inner, end), forward::spdy(link, ports));
            }
        }
    })
}

fn is(object: &k8s_openapi::api::core::v1::Pod, namespace: &str, name: &str) -> bool {
    object.metadata.name.as_deref() == Some(name) && object.metadata.namespace.as_deref() == Some(namespace)
}

fn find(shared: &Shared, namespace: &str, name: &str) -> Option<PodRef> {
    let pods = shared.pods.load();
    pods.values().find(|object| is(object, namespace, name)).map(|object| plan::pod_ref(object))
}

/// Returns the id of a running container.
fn running(shared: &Shared, namespace: &str, name: &str, container: &str) -> Result<String, (StatusCode, String)> {
    let Some(pod) = find(shared, namespace, name) else {
        return Err((StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")));
    };
    let observed = Arc::clone(&shared.runtime.subscribe(&pod.uid).borrow());
    match observed.latest(container).filter(|record| record.is_running()) {
        Some(record) => Ok(record.id.clone()),
        None => {
            let message = format!("container {container} of pod {name} is not running");
            Err((StatusCode::BAD_REQUEST, message))
        }
    }
}

/// Switches the connection to the client's protocol, and serves it in a task of its own.
fn upgrade<S, F>(clients: &Clients, purpose: Purpose, mut request: Request, serve: S) -> Response
where
    S: FnOnce(TokioIo<Upgraded>, Agreed) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let agreed = match negotiate::negotiate(purpose, request.headers()) {
        Ok(agreed) => agreed,
        Err(refused) => return (refused.code, *refused.headers, refused.message).into_response(),
    };
    let Some(connection) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refusal(StatusCode::BAD_REQUEST, "unable to upgrade: use HTTP/1.1".to_owned());
    };
    let Some(permit) = clients.admit() else {
        let message = format!("this node already serves {MAX_CLIENTS} streams; try again later");
        return refusal(StatusCode::TOO_MANY_REQUESTS, message);
    };
    let (headers, shutdown) = (agreed.headers.clone(), clients.shutdown.clone());
    clients.tasks.spawn(async move {
        let _permit = permit;
        let served = async {
            match connection.await {
                Ok(io) => serve(TokioIo::new(io), agreed).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        };
        tokio::select! {
            () = served => {}
            () = shutdown.cancelled() => tracing::debug!("a stream ends because the agent stops"),
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Connects a client to a process.
async fn process<S>(io: TokioIo<Upgraded>, agreed: Agreed, streams: ProcessStreams, start: S)
where
    S: Future<Output = Result<Session, RuntimeError>>,
{
    let (link, end) = link::link();
    let version = agreed.version;
    match agreed.carrier {
        Carrier::Channels(channels) => {
            let roles = Roles::channels(streams);
            let driven = websocket::drive(io, channels, Some(roles.greeting()), end);
            tokio::join!(driven, command::run(link, roles, Vec::new(), version, start));
        }
        Carrier::Spdy | Carrier::TunnelledSpdy => {
            tokio::join!(spdy::drive(io, end), spdy_command(link, streams, version, start));
        }
    }
}

async fn spdy_command<S>(mut link: Link, streams: ProcessStreams, version: u8, start: S)
where
    S: Future<Output = Result<Session, RuntimeError>>,
{
    match command::gather(&mut link, streams, version).await {
        Ok((roles, early)) => command::run(link, roles, early, version, start).await,
        Err(why) => tracing::debug!(why, "a client did not open its streams"),
    }
}
