//! The network between simulated processes.
//!
//! It behaves like TCP connections: messages arrive in order, possibly late, or not at all because the connection
//! breaks. A lost message is sent again later, so loss is delay. A cut link delivers nothing until it is restored, or
//! until one end has waited too long and gives up the connection.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Request, Response, response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::process::Process;
use super::random::Random;
use crate::platform::tokio;
use crate::platform::tokio::sync::{Notify, mpsc};
use crate::platform::tokio::time::{Instant, sleep, sleep_until, timeout};
use crate::raft::network::channel::{self, Unanswered};
use crate::raft::network::frames::{self, FrameError, PeerBody};
use crate::raft::network::link::Connection;
use crate::raft::network::server;
use crate::raft::node::Node;

thread_local! {
    static NETWORK: RefCell<Option<Arc<Network>>> = const { RefCell::new(None) };
}

/// Time after which an end gives up a silent connection, in milliseconds.
const KEEP_ALIVE_MILLIS: Range<u64> = 3000..5000;
/// Additional delay of a message that is lost and sent again, in milliseconds.
const RESEND_MILLIS: Range<u64> = 200..600;

/// Quality of the network.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Delay of a message, in microseconds.
    pub delay_micros: Range<u64>,
    pub loss_percent: u64,
}

/// All links.
pub struct Network {
    state: Mutex<State>,
    /// Signals that a link was cut or restored, or that a process was stopped, resumed or ended.
    changed: Notify,
    random: Mutex<Random>,
}

struct State {
    hosts: BTreeMap<String, Host>,
    /// Cut links, as (from, to).
    cut: BTreeSet<(String, String)>,
    weather: Weather,
}

struct Host {
    process: Arc<Process>,
    /// Set when the process listens.
    node: Option<Arc<Node>>,
}

impl Network {
    /// Creates the network of this thread.
    pub fn install(random: Random, weather: Weather) -> Arc<Self> {
        let state = State { hosts: BTreeMap::new(), cut: BTreeSet::new(), weather };
        let network = Network { state: Mutex::new(state), changed: Notify::new(), random: Mutex::new(random) };
        let network = Arc::new(network);
        NETWORK.set(Some(network.clone()));
        network
    }

    /// Drops all processes, to break the reference cycle between them and the network.
    pub fn close(&self) {
        NETWORK.set(None);
        self.state.lock().hosts.clear();
    }

    pub fn begin(&self, process: &Arc<Process>) {
        let host = Host { process: process.clone(), node: None };
        self.state.lock().hosts.insert(process.name.clone(), host);
        self.changed();
    }

    pub fn listen(&self, name: &str, node: Arc<Node>) {
        if let Some(host) = self.state.lock().hosts.get_mut(name) {
            host.node = Some(node);
        }
    }

    /// Signals that a process was stopped, resumed or ended.
    pub fn changed(&self) {
        self.changed.notify_waiters();
    }

    pub fn cut(&self, from: &str, to: &str) {
        self.state.lock().cut.insert((from.to_owned(), to.to_owned()));
        self.changed();
    }

    pub fn restore_links(&self) {
        self.state.lock().cut.clear();
        self.changed();
    }

    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        let state = self.state.lock();
        !state.cut.is_empty() && state.cut.contains(&(from.to_owned(), to.to_owned()))
    }

    fn delay(&self) -> Duration {
        let Weather { delay_micros, loss_percent } = self.state.lock().weather.clone();
        let mut random = self.random.lock();
        let delay = random.micros(delay_micros);
        if random.percent(loss_percent) { delay + random.millis(RESEND_MILLIS) } else { delay }
    }

    fn host(&self, name: &str) -> Option<(Arc<Process>, Option<Arc<Node>>)> {
        let state = self.state.lock();
        state.hosts.get(name).map(|host| (host.process.clone(), host.node.clone()))
    }
}

/// One direction of a connection between two processes.
#[derive(Clone)]
struct Route {
    network: Arc<Network>,
    from: String,
    to: String,
    /// Cancelled when the connection has ended.
    broken: CancellationToken,
}

impl Route {
    fn back(&self) -> Route {
        Route { from: self.to.clone(), to: self.from.clone(), ..self.clone() }
    }

    fn is_cut(&self) -> bool {
        self.network.is_cut(&self.from, &self.to)
    }

    /// Waits until the link is not cut.
    async fn open(&self) {
        while self.is_cut() {
            self.network.changed.notified().await;
        }
    }

    /// Waits for the delay of a message.
    async fn pass(&self) {
        sleep(self.network.delay()).await;
        self.open().await;
    }
}

/// A part of a message in transit.
enum Item {
    Head(Box<response::Parts>),
    Data(Bytes),
    End,
}

/// The sending end of one direction.
struct Sender {
    items: mpsc::UnboundedSender<(Instant, Item)>,
    route: Route,
    last: Instant,
}

struct Receiver {
    items: mpsc::UnboundedReceiver<(Instant, Item)>,
    route: Route,
}

fn pipe(route: Route) -> (Sender, Receiver) {
    let (sender, items) = mpsc::unbounded_channel();
    (Sender { items: sender, route: route.clone(), last: Instant::now() }, Receiver { items, route })
}

impl Sender {
    /// Sends an item. Returns false when the receiver is gone.
    fn send(&mut self, item: Item) -> bool {
        // Items arrive in the order in which they were sent.
        self.last = self.last.max(Instant::now() + self.route.network.delay());
        self.items.send((self.last, item)).is_ok()
    }

    /// Sends a body until it ends or fails.
    async fn send_body(mut self, mut body: PeerBody) {
        while let Some(frame) = body.frame().await {
            // Without an `End`, the receiver sees that the body is incomplete.
            let Ok(frame) = frame else { return };
            if let Ok(data) = frame.into_data()
                && !self.send(Item::Data(data))
            {
                return;
            }
        }
        self.send(Item::End);
    }
}

impl Receiver {
    async fn next(&mut self) -> Result<Item, FrameError> {
        let Receiver { items, route } = self;
        let broken = || FrameError::Connection("the connection broke".to_owned());
        let arriving = async {
            let Some((arrival, item)) = items.recv().await else {
                route.pass().await;
                return Err(broken());
            };
            sleep_until(arrival).await;
            route.open().await;
            Ok(item)
        };
        tokio::select! {
            () = route.broken.cancelled() => Err(broken()),
            item = arriving => item,
        }
    }

    /// Converts the receiver to a body. `guard` is dropped with the body.
    fn into_body(self, guard: Option<DropGuard>) -> PeerBody {
        let frames = futures::stream::unfold(Some((self, guard)), async |state| {
            let (mut receiver, guard) = state?;
            match receiver.next().await {
                Ok(Item::Data(data)) => Some((Ok(data), Some((receiver, guard)))),
                Ok(Item::End | Item::Head(_)) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        frames::stream(frames.boxed())
    }
}

/// A connection to a process.
#[derive(Clone)]
pub struct Channel {
    route: Route,
    to: Arc<Process>,
}

impl Channel {
    pub fn is_closed(&self) -> bool {
        self.route.broken.is_cancelled()
    }

    /// Sends a request. The future is boxed because the handler may send requests in turn, so the type is recursive.
    pub fn send(&self, request: Request<PeerBody>) -> BoxFuture<'_, Result<Response<PeerBody>, Unanswered>> {
        Box::pin(self.ask(request))
    }

    async fn ask(&self, request: Request<PeerBody>) -> Result<Response<PeerBody>, Unanswered> {
        let failed = |was_sent, reason: &str| Unanswered { was_sent, reason: reason.to_owned() };
        let Some(own) = Process::current().filter(|_| !self.is_closed()) else {
            return Err(failed(false, "the connection is closed"));
        };
        let (head, body) = request.into_parts();
        let (up, arriving) = pipe(self.route.clone());
        let (down, mut answers) = pipe(self.route.back());
        // Cancelled when the caller drops the response.
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        let stop = over.clone();
        own.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = up.send_body(body) => {}
            }
        });
        let (route, network) = (self.route.clone(), self.route.network.clone());
        self.to.spawn(async move {
            let given_up = async {
                over.cancelled().await;
                route.pass().await;
            };
            let answering = async {
                route.pass().await;
                let Some((_, Some(node))) = network.host(&route.to) else { return };
                let request = Request::from_parts(head, arriving.into_body(None));
                let response = server::respond(&node, request).await;
                let (head, body) = response.into_parts();
                let mut down = down;
                if down.send(Item::Head(Box::new(head))) {
                    down.send_body(body).await;
                }
            };
            tokio::select! {
                () = given_up => {}
                () = answering => {}
            }
        });
        match answers.next().await {
            Ok(Item::Head(head)) => Ok(Response::from_parts(*head, answers.into_body(Some(guard)))),
            Ok(Item::Data(_) | Item::End) => Err(failed(true, "an answer without a head")),
            Err(error) => Err(failed(true, &error.to_string())),
        }
    }
}

/// Connects the current process to a peer.
pub async fn connect(peer: &str) -> io::Result<(channel::Channel, Connection)> {
    // A joining member knows the others only by their addresses.
    let peer = peer.split(':').next().unwrap_or(peer);
    let network = NETWORK.with_borrow(Clone::clone).ok_or(io::ErrorKind::NetworkUnreachable)?;
    let own = Process::current().ok_or(io::ErrorKind::NetworkUnreachable)?;
    let route = Route { network, from: own.name.clone(), to: peer.to_owned(), broken: CancellationToken::new() };
    route.pass().await;
    route.back().pass().await;
    let to = loop {
        match route.network.host(peer) {
            Some((process, Some(_))) if !process.is_dead() => {
                if !process.is_stopped() {
                    break process;
                }
                route.network.changed.notified().await;
            }
            _ => return Err(io::ErrorKind::ConnectionRefused.into()),
        }
    };
    let ended = keep(route.clone(), to.clone());
    Ok((channel::Channel::Simulated(Channel { route, to }), Box::pin(ended)))
}

/// Waits until a connection ends.
async fn keep(route: Route, to: Arc<Process>) -> io::Result<()> {
    let _broken = route.broken.clone().drop_guard();
    let back = route.back();
    let is_silent = || route.is_cut() || back.is_cut() || to.is_stopped();
    loop {
        if is_silent() {
            let patience = route.network.random.lock().millis(KEEP_ALIVE_MILLIS);
            let silence = async {
                while is_silent() {
                    route.network.changed.notified().await;
                }
            };
            if timeout(patience, silence).await.is_err() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        } else if to.is_dead() {
            back.pass().await;
            return Ok(());
        } else {
            route.network.changed.notified().await;
        }
    }
}
