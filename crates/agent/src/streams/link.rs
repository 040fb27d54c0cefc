//! The streams of one client, whatever protocol carries them: numbered streams of bytes in both directions, through
//! bounded channels.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Number of pieces that wait in each direction. A side that does not read stops the other one.
const WAITING: usize = 8;
/// Maximum size of a piece, in bytes.
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// An event on the client's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The client has opened a stream (SPDY only; the streams of a WebSocket are there from the beginning).
    Opened {
        stream: u32,
        headers: Vec<(String, String)>,
    },
    Data {
        stream: u32,
        bytes: Bytes,
    },
    /// The client sends nothing more on this stream.
    Finished {
        stream: u32,
    },
    /// The client neither sends nor reads any more on this stream.
    Reset {
        stream: u32,
    },
}

/// A message to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Data {
        stream: u32,
        bytes: Bytes,
    },
    Finish {
        stream: u32,
    },
    /// Accepts a stream.
    Accept {
        stream: u32,
    },
    /// Rejects a stream.
    Refuse {
        stream: u32,
    },
    /// Answers a ping.
    Pong {
        id: u32,
    },
}

/// The client has gone, so that nothing can be sent to it.
#[derive(Debug)]
pub(super) struct Gone;

/// The sending side of a client's streams.
#[derive(Clone, Debug)]
pub(super) struct Outlet(mpsc::Sender<Outgoing>);

impl Outlet {
    pub(super) async fn send(&self, message: Outgoing) -> Result<(), Gone> {
        self.0.send(message).await.map_err(|_| Gone)
    }

    /// Sends bytes in pieces of limited size.
    pub(super) async fn data(&self, stream: u32, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
            self.send(Outgoing::Data { stream, bytes: piece }).await?;
        }
        Ok(())
    }

    /// Returns when the client has gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    pub(super) async fn finish(&self, stream: u32) -> Result<(), Gone> {
        self.send(Outgoing::Finish { stream }).await
    }
}

/// A client's streams. The client has gone when `incoming` ends.
pub(super) struct Link {
    pub incoming: mpsc::Receiver<Incoming>,
    pub outgoing: Outlet,
}

/// The other side of a [`Link`], for the task that speaks the client's protocol.
pub(super) struct LinkEnd {
    pub incoming: mpsc::Sender<Incoming>,
    pub outgoing: mpsc::Receiver<Outgoing>,
    /// For answers of the protocol itself. Does not keep the link open.
    pub own: mpsc::WeakSender<Outgoing>,
}

pub(super) fn link() -> (Link, LinkEnd) {
    let (to_us, incoming) = mpsc::channel(WAITING);
    let (sender, to_client) = mpsc::channel(WAITING);
    let own = sender.downgrade();
    (Link { incoming, outgoing: Outlet(sender) }, LinkEnd { incoming: to_us, outgoing: to_client, own })
}
