//! The WebSocket protocols of Kubernetes' streams: channels in one connection (`v5.channel.k8s.io` and its older forms),
//! and a tunnel for SPDY.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::link::{Incoming, LinkEnd, Outgoing, PIECE_BYTES};
use super::{CLOSE_WITHIN, PING_EVERY};

/// Maximum size of a client's message, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The channel of a signal that closes another channel (version 5).
const CLOSE_CHANNEL: u8 = 255;

/// The form of messages. The first byte names the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// The channel's number, and bytes.
    Binary,
    /// The channel's digit, and base64.
    Base64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub coding: Coding,
    /// Whether a client can close one of its channels.
    pub closes: bool,
}

impl Channels {
    /// Returns the event of a client's message; `None` for a message without a meaning.
    fn decode(self, message: &Bytes) -> Option<Incoming> {
        let first = *message.first()?;
        let rest = message.slice(1..);
        match self.coding {
            Coding::Binary if first == CLOSE_CHANNEL => {
                let stream = rest.first().filter(|_| self.closes)?;
                Some(Incoming::Finished { stream: u32::from(*stream) })
            }
            Coding::Binary => Some(Incoming::Data { stream: u32::from(first), bytes: rest }),
            Coding::Base64 => {
                let stream = u32::from(first.checked_sub(b'0').filter(|digit| *digit < 10)?);
                Some(Incoming::Data { stream, bytes: BASE64.decode(rest).ok()?.into() })
            }
        }
    }

    /// Returns the message for bytes on a channel; `None` for a channel that the protocol cannot name.
    fn encode(self, stream: u32, bytes: &[u8]) -> Option<Message> {
        let channel = u8::try_from(stream).ok()?;
        Some(match self.coding {
            Coding::Binary => {
                let mut message = Vec::with_capacity(1 + bytes.len());
                message.push(channel);
                message.extend_from_slice(bytes);
                Message::binary(message)
            }
            Coding::Base64 => {
                let digit = channel.checked_add(b'0').filter(u8::is_ascii_digit)?;
                Message::text(format!("{}{}", char::from(digit), BASE64.encode(bytes)))
            }
        })
    }
}

async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> WebSocketStream<IO> {
    let config = WebSocketConfig::default()
        .read_buffer_size(PIECE_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * PIECE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    #[error("the tunnel failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the client did not close its side in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

fn report(ended: Result<(), ConnectionError>) {
    match ended {
        Ok(()) | Err(ConnectionError::WebSocket(WebSocketError::ConnectionClosed)) => {}
        Err(error) => tracing::debug!(%error, "a WebSocket ended"),
    }
}

/// Speaks the channel protocol until the client has gone, or until our side of the link is closed. `greeting` is the
/// channel of an empty message that tells the client that the connection is established.
pub(super) async fn drive<IO>(io: IO, channels: Channels, greeting: Option<u32>, end: LinkEnd)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (to_client, from_client) = accept(io).await.split();
    let LinkEnd { incoming, outgoing, own: _ } = end;
    let mut reading = std::pin::pin!(read(from_client, channels, incoming));
    report(tokio::select! {
        ended = &mut reading => ended,
        written = write(to_client, channels, greeting, outgoing) => match written {
            Ok(()) => timeout(CLOSE_WITHIN, reading).await.map_err(ConnectionError::from).flatten(),
            Err(error) => Err(error),
        },
    });
}

async fn read(
    mut from: impl Stream<Item = Result<Message, WebSocketError>> + Unpin,
    channels: Channels,
    incoming: mpsc::Sender<Incoming>,
) -> Result<(), ConnectionError> {
    while let Some(message) = from.next().await {
        let bytes = match message? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Ok(()),
            _ => continue,
        };
        if let Some(event) = channels.decode(&bytes) {
            // Nobody listens after the end of the streams; the rest is read up to the client's end.
            incoming.send(event).await.ok();
        }
    }
    Ok(())
}

async fn write(
    mut to: impl Sink<Message, Error = WebSocketError> + Unpin,
    channels: Channels,
    greeting: Option<u32>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), ConnectionError> {
    if let Some(message) = greeting.and_then(|stream| channels.encode(stream, &[])) {
        to.send(message).await?;
    }
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let message = tokio::select! {
            message = outgoing.recv() => match message {
                None => {
                    to.send(goodbye()).await?;
                    return Ok(());
                }
                Some(Outgoing::Data { stream, bytes }) => channels.encode(stream, &bytes),
                // These protocols do not name the end of a single channel to the client.
                Some(_) => None,
            },
            _ = pings.tick() => Some(Message::Ping(Bytes::new())),
        };
        if let Some(message) = message {
            to.send(message).await?;
        }
    }
}

/// Carries a byte stream in binary messages, until either side ends.
pub(super) async fn tunnel<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, inner: DuplexStream) {
    let (mut to_client, mut from_client) = accept(io).await.split();
    let (mut from_inner, mut to_inner) = tokio::io::split(inner);
    let inwards = async {
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(bytes) => to_inner.write_all(&bytes).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok(())
    };
    let outwards = async {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let read = from_inner.read(&mut buffer).await?;
            if read == 0 {
                return Ok(to_client.send(goodbye()).await?);
            }
            to_client.send(Message::binary(Bytes::copy_from_slice(&buffer[..read]))).await?;
        }
    };
    report(tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: Channels = Channels { coding: Coding::Binary, closes: true };
    const OLD: Channels = Channels { coding: Coding::Binary, closes: false };
    const TEXT: Channels = Channels { coding: Coding::Base64, closes: false };

    #[test]
    fn messages_name_their_channel() {
        let data = |stream, bytes: &'static [u8]| Some(Incoming::Data { stream, bytes: bytes.into() });
        let cases: [(Channels, &'static [u8], Option<Incoming>); 9] = [
            (BINARY, b"\x00input", data(0, b"input")),
            (BINARY, b"\x04{}", data(4, b"{}")),
            (BINARY, b"\xff\x00", Some(Incoming::Finished { stream: 0 })),
            (BINARY, b"\xff", None),
            (OLD, b"\xff\x00", None),
            (BINARY, b"", None),
            (TEXT, b"0aGk=", data(0, b"hi")),
            (TEXT, b"0not base64!", None),
            (TEXT, b"xaGk=", None),
        ];
        for (channels, message, expected) in cases {
            assert_eq!(channels.decode(&Bytes::from_static(message)), expected, "{message:?}");
        }
        assert_eq!(BINARY.encode(1, b"out"), Some(Message::binary(&b"\x01out"[..])));
        assert_eq!(TEXT.encode(3, b"hi"), Some(Message::text("3aGk=")));
        assert_eq!((TEXT.encode(10, b""), BINARY.encode(256, b"")), (None, None));
    }
}
