//! Port-forward: copies between a client's streams and connections to a pod's ports.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::{Gone, Incoming, Link, Outgoing, Outlet, PIECE_BYTES};
use crate::plan::PodRef;
use crate::runtime::{Runtime, RuntimeError};

/// Maximum number of connections of one client.
const MAX_CONNECTIONS: usize = 256;
/// Number of pieces that wait for a connection to a port.
const WAITING: usize = 4;

/// The pod whose ports are forwarded.
#[derive(Clone)]
pub(super) struct Ports {
    pub runtime: Arc<dyn Runtime>,
    pub pod: PodRef,
}

impl Ports {
    async fn connect(&self, port: u16) -> Result<TcpStream, RuntimeError> {
        self.runtime.connect(&self.pod, port).await
    }
}

/// A change of a data stream by the client. A reset ends the channel without [`Piece::End`].
enum Piece {
    Data(Bytes),
    End,
}

/// Returns the `ports` of a request in their order.
///
/// # Errors
/// The message for the client.
pub(super) fn parse_ports<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let ports: Result<Vec<u16>, _> = values
        .flat_map(|value| value.split(','))
        .map(|port| {
            port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("unable to parse {port:?} as a port"))
        })
        .collect();
    match ports {
        Ok(ports) if ports.is_empty() => Err("query parameter \"ports\" is required".to_owned()),
        Ok(ports) if ports.len() > MAX_CONNECTIONS / 2 => Err("too many ports".to_owned()),
        ports => ports,
    }
}

/// Serves a WebSocket client: each port has one connection, a data channel (an even number) and an error channel.
pub(super) async fn channels(link: Link, ports: Ports, wanted: Vec<u16>) {
    let Link { incoming, outgoing } = link;
    let (mut open, mut connections) = (HashMap::new(), JoinSet::new());
    for (data, port) in (0..).step_by(2).zip(wanted) {
        let streams = Pair { data, error: data + 1 };
        // The first message of each channel names its port.
        for stream in [streams.data, streams.error] {
            if let Err(Gone) = outgoing.data(stream, Bytes::copy_from_slice(&port.to_le_bytes())).await {
                return;
            }
        }
        let (pieces, from_client) = mpsc::channel(WAITING);
        open.insert(data, pieces);
        connections.spawn(forward(ports.clone(), port, streams, from_client, outgoing.clone()));
    }
    let client = Client { incoming, outgoing, ports: None, open, pending: HashMap::new(), connections };
    client.serve().await;
}

/// Serves a SPDY client, which opens a pair of streams for each connection.
pub(super) async fn spdy(link: Link, ports: Ports) {
    let Link { incoming, outgoing } = link;
    let (open, pending, connections) = (HashMap::new(), HashMap::new(), JoinSet::new());
    Client { incoming, outgoing, ports: Some(ports), open, pending, connections }.serve().await;
}

/// The two streams of a connection.
#[derive(Clone, Copy)]
struct Pair {
    data: u32,
    error: u32,
}

/// A connection of which only one stream is open yet.
struct HalfOpen {
    data: Option<u32>,
    error: Option<u32>,
}

struct Client {
    incoming: mpsc::Receiver<Incoming>,
    outgoing: Outlet,
    /// `None` for a client whose connections are all open from the beginning.
    ports: Option<Ports>,
    /// The client's side of each data stream.
    open: HashMap<u32, mpsc::Sender<Piece>>,
    /// Half-open connections, by the client's id and port.
    pending: HashMap<(String, u16), HalfOpen>,
    connections: JoinSet<u32>,
}

impl Client {
    /// Serves until the client has gone, or until the last of its fixed connections has ended. The others are closed.
    async fn serve(mut self) {
        loop {
            tokio::select! {
                event = self.incoming.recv() => match event {
                    None => return,
                    Some(event) => if let Err(Gone) = self.handle(event).await { return },
                },
                Some(ended) = self.connections.join_next() => {
                    match ended {
                        Ok(data) => { self.open.remove(&data); }
                        Err(error) => tracing::error!(%error, "a forwarded connection failed"),
                    }
                    if self.ports.is_none() && self.connections.is_empty() {
                        return;
                    }
                }
                () = self.outgoing.closed() => return,
            }
        }
    }

    async fn handle(&mut self, event: Incoming) -> Result<(), Gone> {
        match event {
            Incoming::Opened { stream, headers } => return self.open(stream, &headers).await,
            Incoming::Data { stream, bytes } => self.pass(stream, Piece::Data(bytes)).await,
            Incoming::Finished { stream } => self.pass(stream, Piece::End).await,
            Incoming::Reset { stream } => drop(self.open.remove(&stream)),
        }
        Ok(())
    }

    /// Passes a piece on to its connection. A connection that does not take it stops the client's other ones as well,
    /// unless the client goes away.
    async fn pass(&mut self, stream: u32, piece: Piece) {
        let Some(pieces) = self.open.get(&stream) else { return };
        let is_closed = tokio::select! {
            sent = pieces.send(piece) => sent.is_err(),
            () = self.outgoing.closed() => true,
        };
        if is_closed {
            self.open.remove(&stream);
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) -> Result<(), Gone> {
        let header = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map_or("", |(_, value)| value.as_str())
        };
        let port = header("port").parse().ok().filter(|port: &u16| *port > 0);
        let kind = header("streamtype");
        let is_full = self.pending.len() + self.connections.len() >= MAX_CONNECTIONS;
        let (Some(ports), Some(port), "data" | "error", false) = (&self.ports, port, kind, is_full) else {
            return self.outgoing.send(Outgoing::Refuse { stream }).await;
        };
        self.outgoing.send(Outgoing::Accept { stream }).await?;
        let id = (header("requestid").to_owned(), port);
        let half = self.pending.entry(id.clone()).or_insert(HalfOpen { data: None, error: None });
        *(if kind == "data" { &mut half.data } else { &mut half.error }) = Some(stream);
        if let HalfOpen { data: Some(data), error: Some(error) } = *half {
            self.pending.remove(&id);
            let (pieces, from_client) = mpsc::channel(WAITING);
            self.open.insert(data, pieces);
            let streams = Pair { data, error };
            self.connections.spawn(forward(ports.clone(), port, streams, from_client, self.outgoing.clone()));
        }
        Ok(())
    }
}

/// Serves one connection, and returns its data stream.
async fn forward(ports: Ports, port: u16, streams: Pair, from_client: mpsc::Receiver<Piece>, outgoing: Outlet) -> u32 {
    let served = async {
        let failure = match ports.connect(port).await {
            Err(error) => Some(error.to_string()),
            Ok(connection) => exchange(connection, streams.data, from_client, &outgoing)
                .await?
                .map(|error| format!("error forwarding port {port} to pod {}: {error}", ports.pod.name)),
        };
        if let Some(failure) = failure {
            outgoing.data(streams.error, failure.into()).await?;
        }
        outgoing.finish(streams.data).await?;
        outgoing.finish(streams.error).await
    };
    if let Err(Gone) = served.await {
        tracing::debug!(port, "a client went away while a port was forwarded");
    }
    streams.data
}

/// Copies both ways until both sides have ended, or the client has reset its stream. Returns the connection's error.
async fn exchange(
    connection: TcpStream,
    stream: u32,
    mut from_client: mpsc::Receiver<Piece>,
    outgoing: &Outlet,
) -> Result<Option<std::io::Error>, Gone> {
    let (mut from_port, mut to_port) = connection.into_split();
    // Whether the client has finished its side, rather than reset the stream.
    let inwards = async {
        while let Some(piece) = from_client.recv().await {
            match piece {
                Piece::Data(bytes) => to_port.write_all(&bytes).await?,
                Piece::End => {
                    to_port.shutdown().await?;
                    return Ok(true);
                }
            }
        }
        Ok::<bool, std::io::Error>(false)
    };
    let outwards = async {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match from_port.read(&mut buffer).await {
                Ok(0) => return Ok(None),
                Ok(read) => outgoing.data(stream, Bytes::copy_from_slice(&buffer[..read])).await?,
                Err(error) => return Ok(Some(error)),
            }
        }
    };
    let (mut inwards, mut outwards) = (std::pin::pin!(inwards), std::pin::pin!(outwards));
    tokio::select! {
        // A server that has closed its connection reads nothing more.
        ended = &mut outwards => ended,
        ended = &mut inwards => match ended {
            Ok(true) => outwards.await,
            Ok(false) => Ok(None),
            Err(error) => Ok(Some(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_from_1() {
        assert_eq!(parse_ports(["80", "1,65535"].into_iter()), Ok(vec![80, 1, 65535]));
        for bad in ["", "0", "65536", "http", "80,"] {
            assert!(parse_ports([bad].into_iter()).is_err(), "{bad:?}");
        }
        assert!(parse_ports(std::iter::empty()).is_err());
        assert!(parse_ports(std::iter::repeat_n("80", MAX_CONNECTIONS)).is_err());
    }
}
