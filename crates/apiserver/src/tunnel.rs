//! The tunnel between a client's upgraded connection and a node's. It copies bytes and knows no protocol.

use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::response::Body;

/// Memory of each direction, in bytes. A side that does not read stops the other one.
const BUFFER_BYTES: usize = 16 * 1024;
/// A tunnel without a byte in either direction for this long ends, as in the kubelet.
const IDLE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 4 * 60 * 60 });
/// Time for the last bytes after one of the sides has ended.
const DRAIN_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// A connection that has left HTTP.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// One side of a tunnel: the node's connection.
pub struct Tunnel {
    node: Box<dyn Duplex>,
    shutdown: CancellationToken,
    /// The place that the tunnel takes where their number is limited.
    permit: Option<OwnedSemaphorePermit>,
}

impl Tunnel {
    pub(crate) fn new(node: impl Duplex, shutdown: CancellationToken) -> Self {
        Tunnel { node: Box::new(node), shutdown, permit: None }
    }

    /// Keeps a permit until the tunnel has ended.
    pub(crate) fn holding(self, permit: Option<OwnedSemaphorePermit>) -> Self {
        Tunnel { permit, ..self }
    }

    /// Returns the body of a response that makes the client's connection the other side.
    pub(crate) fn into_body(self) -> Body {
        Body::Upgrade(Box::new(move |client| self.run(client).boxed()))
    }

    /// Copies bytes in both directions until one of the sides has ended, nothing moves for hours, or this server stops.
    /// Both connections are closed then.
    pub(crate) async fn run(self, client: impl Duplex) {
        let Tunnel { node, shutdown, permit } = self;
        let (from_node, to_node) = tokio::io::split(node);
        let (from_client, to_client) = tokio::io::split(client);
        let (moved, progress) = mpsc::channel(1);
        let both = async {
            let mut outgoing = std::pin::pin!(copy(from_node, to_client, moved.clone()));
            let mut incoming = std::pin::pin!(copy(from_client, to_node, moved.clone()));
            tokio::select! {
                // The client has nothing to say to a node that has closed its side.
                () = &mut outgoing => {}
                () = &mut incoming => {
                    if timeout(DRAIN_WITHIN, outgoing).await.is_err() {
                        tracing::debug!("a node kept a stream open after its client had closed it");
                    }
                }
            }
        };
        tokio::select! {
            () = both => {}
            () = idle(progress) => tracing::debug!("an idle stream was closed"),
            () = shutdown.cancelled() => tracing::debug!("a stream was closed because this server stops"),
        }
        drop(permit);
    }
}

/// Copies until the reader ends or either side fails, and then ends the writer.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: mpsc::Sender<()>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let ended: std::io::Result<()> = async {
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return timeout(DRAIN_WITHIN, to.shutdown()).await?;
            }
            to.write_all(&buffer[..read]).await?;
            to.flush().await?;
            // A full channel already reports progress.
            if let Err(mpsc::error::TrySendError::Closed(())) = moved.try_send(()) {
                return Ok(());
            }
        }
    }
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a stream's connection failed");
    }
}

/// Returns when nothing has moved for [`IDLE_WITHIN`], or when nothing can report it any more.
pub(crate) async fn idle(mut progress: mpsc::Receiver<()>) {
    loop {
        tokio::select! {
            () = sleep_until(Instant::now() + IDLE_WITHIN) => return,
            moved = progress.recv() => if moved.is_none() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tunnel_copies_both_ways_and_ends_with_the_node() {
        let (mut client, client_end) = tokio::io::duplex(64);
        let (mut node, node_end) = tokio::io::duplex(64);
        let running = tokio::spawn(Tunnel::new(node_end, CancellationToken::new()).run(client_end));
        client.write_all(b"ask").await.expect("the tunnel reads");
        let mut asked = [0; 3];
        node.read_exact(&mut asked).await.expect("the tunnel writes");
        node.write_all(b"answer").await.expect("the tunnel reads");
        drop(node);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("the rest arrives before the end");
        assert_eq!((&asked, answer.as_str()), (b"ask", "answer"));
        timeout(10 * DRAIN_WITHIN, running).await.expect("the tunnel ends").expect("without a panic");
    }

    #[tokio::test]
    async fn a_node_that_outlives_its_client_is_closed() {
        let (client, client_end) = tokio::io::duplex(64);
        let (mut node, node_end) = tokio::io::duplex(64);
        let running = tokio::spawn(Tunnel::new(node_end, CancellationToken::new()).run(client_end));
        drop(client);
        assert_eq!(node.read(&mut [0; 8]).await.expect("the end"), 0, "the node sees the client's end");
        running.await.expect("the tunnel ends although the node keeps its side open");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_stops_the_node_in_bounded_memory() {
        let (client, client_end) = tokio::io::duplex(64);
        let (mut node, node_end) = tokio::io::duplex(64);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Tunnel::new(node_end, shutdown.clone()).run(client_end));
        let mut sent = 0;
        while let Ok(written) = timeout(Duration::from_millis(300), node.write(&[0; 64])).await {
            sent += written.expect("the tunnel is open");
        }
        assert!(sent <= BUFFER_BYTES + 256, "{sent} bytes were taken");
        shutdown.cancel();
        running.await.expect("a stalled tunnel ends at the shutdown");
        drop(client);
    }

    #[tokio::test]
    async fn an_idle_tunnel_ends() {
        let (_client, client_end) = tokio::io::duplex(64);
        let (_node, node_end) = tokio::io::duplex(64);
        let before = Instant::now();
        Tunnel::new(node_end, CancellationToken::new()).run(client_end).await;
        assert!(before.elapsed() >= IDLE_WITHIN);
    }
}
