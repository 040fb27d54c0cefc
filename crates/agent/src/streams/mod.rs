//! Exec, attach and port-forward of the node API, and the connections of the proxies of pods and services.
//!
//! A request for a stream is checked and its protocol agreed on (`negotiate`), its connection becomes numbered streams
//! (`link`, carried by `websocket` or `spdy`), and these are connected to a process (`command`) or to a pod's ports
//! (`forward`). A proxy's connection carries no streams; its bytes are those of a connection to the pod (`dial`).

mod command;
mod dial;
mod forward;
mod link;
mod negotiate;
mod spdy;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::command::Roles;
pub(crate) use self::dial::{MAX_CONNECTIONS, connector, dial};
use self::link::{Link, LinkEnd};
use self::negotiate::{Carrier, Purpose, negotiate};
use crate::plan;
use crate::runtime::{RuntimeError, Session, Streams as ProcessStreams};
use crate::server::Shared;

/// Maximum number of clients of exec, attach and port-forward at a time.
pub(crate) const MAX_CLIENTS: usize = 256;
/// Interval of pings, which find clients that are gone.
const PING_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(30) };
/// Time for a client to close its connection when it has everything.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Memory of a tunnel between the messages of a WebSocket and SPDY, in bytes.
const TUNNEL_BYTES: usize = 64 * 1024;

/// A response that refuses a stream, in the kubelet's words, which the API server passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: StatusCode,
    pub message: String,
    pub headers: Box<HeaderMap>,
}

impl Refusal {
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), headers: Box::default() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, *self.headers, self.message).into_response()
    }
}

/// The clients that are being served.
#[derive(Clone)]
pub(crate) struct Clients {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    permits: Arc<Semaphore>,
    maximum: usize,
}

/// The place of one client.
struct Place {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    permit: OwnedSemaphorePermit,
}

impl Clients {
    /// Serves at most `maximum` clients at a time.
    pub(crate) fn new(tasks: TaskTracker, shutdown: CancellationToken, maximum: usize) -> Self {
        Clients { tasks, shutdown, permits: Arc::new(Semaphore::new(maximum)), maximum }
    }

    /// # Errors
    /// The refusal when there are too many clients.
    fn admit(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = format!("this node already serves {} streams; try again later", self.maximum);
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
        })?;
        Ok(Place { tasks: self.tasks.clone(), shutdown: self.shutdown.clone(), permit })
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
) -> Result<Response, Refusal> {
    let command: Vec<String> =
        options.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect();
    let id = running(&shared, &namespace, &pod, &container)?;
    let (streams, runtime) = (process_streams(&options), Arc::clone(&shared.runtime));
    let start = async move { runtime.start_exec(&id, &command, streams).await };
    process(&shared.clients, request, streams, start)
}

/// `/attach/{namespace}/{pod}/{container}`
pub(crate) async fn attach(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    options: Options,
    request: Request,
) -> Result<Response, Refusal> {
    let id = running(&shared, &namespace, &pod, &container)?;
    let (streams, runtime) = (process_streams(&options), Arc::clone(&shared.runtime));
    let object = shared.find_pod(&namespace, &pod)?;
    if let Some((spec, _)) = plan::find_container(&object, &container)
        && streams.stdin
        && spec.stdin != Some(true)
    {
        let message = format!("container {container} of pod {pod} does not have stdin attached");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let start = async move { runtime.attach(&id, streams).await };
    process(&shared.clients, request, streams, start)
}

/// `/portForward/{namespace}/{pod}`
pub(crate) async fn port_forward(
    State(shared): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    options: Options,
    request: Request,
) -> Result<Response, Refusal> {
    let pod = shared.find_pod(&namespace, &pod).map(|pod| plan::pod_ref(&pod))?;
    let ports = forward::Ports { runtime: Arc::clone(&shared.runtime), pod };
    let agreed = negotiate(Purpose::Forward, request.headers())?;
    // Only the channels of a WebSocket take their ports from the query.
    let wanted = match agreed.carrier {
        Carrier::Channels(_) => {
            let values = options.iter().filter(|(name, _)| name == "ports").map(|(_, value)| value.as_str());
            forward::parse_ports(values).map_err(|message| Refusal::new(StatusCode::BAD_REQUEST, message))?
        }
        Carrier::Spdy | Carrier::TunnelledSpdy => Vec::new(),
    };
    let place = shared.clients.admit()?;
    upgrade(place, agreed.headers, request, move |io| async move {
        let (link, end) = link::link();
        let carried = carry(io, agreed.carrier, None, end);
        match agreed.carrier {
            Carrier::Channels(_) => {
                tokio::join!(carried, forward::channels(link, ports, wanted));
            }
            Carrier::Spdy | Carrier::TunnelledSpdy => {
                tokio::join!(carried, forward::spdy(link, ports));
            }
        }
    })
}

/// Returns the id of a running container.
fn running(shared: &Shared, namespace: &str, name: &str, container: &str) -> Result<String, Refusal> {
    let pod = shared.find_pod(namespace, name).map(|pod| plan::pod_ref(&pod))?;
    let observed = Arc::clone(&shared.runtime.subscribe(&pod.uid).borrow());
    match observed.latest(container).filter(|record| record.is_running()) {
        Some(record) => Ok(record.id.clone()),
        None => {
            let message = format!("container {container} of pod {name} is not running");
            Err(Refusal::new(StatusCode::BAD_REQUEST, message))
        }
    }
}

/// Switches protocols with these headers, and serves the connection in a task of its own.
fn upgrade<S, F>(place: Place, headers: HeaderMap, mut request: Request, serve: S) -> Result<Response, Refusal>
where
    S: FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let Some(connection) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "unable to upgrade: use HTTP/1.1"));
    };
    let Place { tasks, shutdown, permit } = place;
    tasks.spawn(async move {
        let _permit = permit;
        let served = async {
            match connection.await {
                Ok(io) => serve(TokioIo::new(io)).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        };
        tokio::select! {
            () = served => {}
            () = shutdown.cancelled() => tracing::debug!("a stream ends because the agent stops"),
        }
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Carries the streams of a link over a connection. `greeting` is the channel of a WebSocket whose first message tells the
/// client that the connection is established.
async fn carry(io: TokioIo<Upgraded>, carrier: Carrier, greeting: Option<u32>, end: LinkEnd) {
    match carrier {
        Carrier::Channels(channels) => websocket::drive(io, channels, greeting, end).await,
        Carrier::Spdy => spdy::drive(io, end).await,
        Carrier::TunnelledSpdy => {
            let (outer, inner) = tokio::io::duplex(TUNNEL_BYTES);
            tokio::join!(websocket::tunnel(io, outer), spdy::drive(inner, end));
        }
    }
}

/// Connects a client to a process.
fn process<S>(clients: &Clients, request: Request, streams: ProcessStreams, start: S) -> Result<Response, Refusal>
where
    S: Future<Output = Result<Session, RuntimeError>> + Send + 'static,
{
    let agreed = negotiate(Purpose::Command, request.headers())?;
    let place = clients.admit()?;
    upgrade(place, agreed.headers, request, move |io| async move {
        let (link, end) = link::link();
        match agreed.carrier {
            Carrier::Channels(_) => {
                let roles = Roles::channels(streams);
                let carried = carry(io, agreed.carrier, Some(roles.greeting()), end);
                tokio::join!(carried, command::run(link, roles, Vec::new(), agreed.version, start));
            }
            Carrier::Spdy | Carrier::TunnelledSpdy => {
                let carried = carry(io, agreed.carrier, None, end);
                tokio::join!(carried, spdy_command(link, streams, agreed.version, start));
            }
        }
    })
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
