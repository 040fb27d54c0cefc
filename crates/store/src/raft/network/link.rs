//! A connection to a peer that is kept open.
//!
//! It is opened before it is needed and reopened when it breaks, so that a call finds it ready or fails at once when
//! the peer is down. The death of the peer's process is also noticed here first.

use std::time::Duration;

use futures::TryFutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use crate::platform::TaskTracker;
use crate::platform::tokio;
use crate::platform::tokio::net::TcpStream;
use crate::platform::tokio::sync::watch;

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long a peer may take to answer a ping before the connection is closed.
const PING_DEADLINE: Duration = Duration::from_secs(3);
/// Size of the flow-control window: a few of the largest messages.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
pub(super) const MAX_HTTP_FRAME_BYTES: u32 = 256 << 10;

#[derive(Clone)]
pub enum LinkState {
    /// The first attempt is under way, or the connection just broke.
    Connecting,
    Up(Channel),
    Down {
        /// Whether the peer's address refused the connection: its process is gone.
        refused: bool,
        reason: String,
    },
}

/// A handle to a kept connection.
#[derive(Clone)]
pub struct Link {
    state: watch::Receiver<LinkState>,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Down(String),
    #[error("not connected in time")]
    Timeout,
}

impl Link {
    /// Returns the open connection; waits until `deadline` while one is being opened.
    ///
    /// # Errors
    /// `Down` at once when the last attempt failed, `Timeout` after `deadline`.
    pub async fn sender(&self, deadline: tokio::time::Instant) -> Result<Channel, LinkError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| match state {
            LinkState::Connecting => false,
            LinkState::Up(sender) => !sender.is_closed(),
            LinkState::Down { .. } => true,
        });
        match tokio::time::timeout_at(deadline, settled).await {
            Err(_) => Err(LinkError::Timeout),
            Ok(Err(_)) => Err(LinkError::Down("this member is shutting down".to_owned())),
            Ok(Ok(state)) => match &*state {
                LinkState::Up(sender) => Ok(sender.clone()),
                LinkState::Down { reason, .. } => Err(LinkError::Down(reason.clone())),
                LinkState::Connecting => Err(LinkError::Timeout),
            },
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Up(sender) if !sender.is_closed())
    }

    /// Returns the state of the connection, which can be watched for changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }
}

/// Keeps a connection open.
pub struct LinkKeeper {
    peer: String,
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
    tasks: TaskTracker,
    state: watch::Sender<LinkState>,
}

impl LinkKeeper {
    pub fn new(
        peer: String,
        address: String,
        name: ServerName<'static>,
        connector: TlsConnector,
        tasks: TaskTracker,
    ) -> (Self, Link) {
        let (state, receiver) = watch::channel(LinkState::Connecting);
        (LinkKeeper { peer, address, name, connector, tasks, state }, Link { state: receiver })
    }

    pub async fn run(self, shutdown: CancellationToken) {
        let mut pause = RETRY_MIN;
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return,
                attempt = tokio::time::timeout(CONNECT_DEADLINE, self.connect()) => attempt,
            };
            match attempt {
                Ok(Ok((sender, connection))) => {
                    pause = RETRY_MIN;
                    tracing::debug!(peer = self.peer, "connected");
                    self.state.send_replace(LinkState::Up(sender));
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        ended = connection => if let Err(error) = ended {
                            tracing::debug!(peer = self.peer, %error, "connection lost");
                        },
                    }
                    self.state.send_replace(LinkState::Connecting);
                    // A peer that accepts connections and closes them at once must not cause a busy loop.
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(2)) => {},
                    }
                }
                failed => {
                    let (refused, reason) = match failed {
                        Ok(Err(error)) => (error.kind() == std::io::ErrorKind::ConnectionRefused, error.to_string()),
                        _ => (false, "no answer".to_owned()),
                    };
                    self.state.send_replace(LinkState::Down { refused, reason });
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {},
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn connect(&self) -> std::io::Result<(Channel, Connection)> {
        #[cfg(test)]
        if crate::raft::simulation::process::is_simulated() {
            return crate::raft::simulation::network::connect(&self.peer).await;
        }
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self.connector.connect(self.name.clone(), tcp).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(Tracked(self.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_DEADLINE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_HTTP_FRAME_BYTES)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(std::io::Error::other)?;
        Ok((Channel::Http2(sender), Box::pin(connection.map_err(std::io::Error::other))))
    }
}

/// Future that drives the I/O of a channel until the connection ends.
pub(in crate::raft) type Connection = BoxFuture<'static, std::io::Result<()>>;

/// Executor that runs hyper's tasks in a task tracker, like all tasks of the member.
#[derive(Clone)]
pub struct Tracked(pub TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
