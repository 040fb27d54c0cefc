//! The channels of exec, attach and port-forward: binary messages of a WebSocket, of which the first byte is the channel's
//! number (`v5.channel.k8s.io` and `v4.channel.k8s.io`).

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::transport::{Call, Transport};

/// Version 5, which can close a single channel.
pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";

/// Channel of a message that closes the channel which its only byte names.
const CLOSE: u8 = 255;
/// Maximum size of a message from the server, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Maximum time without a message. A living server answers pings, so a longer silence means that it is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Interval of pings.
pub const PING_EVERY: Duration = Duration::from_secs(15);
/// Maximum time to wait for the end of the connection after the server's close frame.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens the channels at this path. The server chooses one of the protocols.
///
/// # Errors
/// Those of [`Transport::open`], and when the server does not switch to one of the protocols.
pub async fn open(transport: &Transport, path: RequestPath, protocols: &[&str]) -> Result<(Sender, Receiver)> {
    let key = generate_key();
    let text = |text: &str| HeaderValue::from_str(text).map_err(|error| CliError::Answer(error.to_string()));
    let headers: HeaderMap = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::SEC_WEBSOCKET_KEY, text(&key)?),
        (header::SEC_WEBSOCKET_PROTOCOL, text(&protocols.join(", "))?),
    ]
    .into_iter()
    .collect();
    let call = Call::get(path).headers(headers);
    let answer = transport.open(&call).await?;
    let unexpected = |what: &str| CliError::Answer(format!("{} was not upgraded to a WebSocket: {what}", call.path));
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(unexpected(answer.status().as_str()));
    }
    let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|accepted| accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(unexpected("the server did not accept the key"));
    }
    let protocol = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|protocol| protocol.to_str().ok());
    let closes = match protocol {
        Some(protocol) if protocols.contains(&protocol) => protocol == V5,
        other => return Err(unexpected(&format!("the server chose the protocol {other:?}"))),
    };
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| transport.broken(&error))?;
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    let (to, from) = socket.split();
    Ok((Sender { to, closes }, Receiver { from, server: transport.server() }))
}

/// The server does not take messages any more. [`Receiver::next`] tells the reason.
#[derive(Debug)]
pub struct Gone;

/// The direction to the server.
pub struct Sender {
    to: SplitSink<Socket, Message>,
    /// Whether the protocol can close a single channel.
    closes: bool,
}

impl Sender {
    async fn message(&mut self, message: Message) -> Result<(), Gone> {
        self.to.send(message).await.map_err(|error| {
            tracing::debug!(%error, "the server takes no more messages");
            Gone
        })
    }

    pub async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Gone> {
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(channel);
        message.extend_from_slice(bytes);
        self.message(Message::binary(message)).await
    }

    /// Ends one channel. Version 4 cannot do so, and its servers see an open channel.
    pub async fn finish(&mut self, channel: u8) -> Result<(), Gone> {
        if self.closes { self.announce_end(channel).await } else { Ok(()) }
    }

    /// Sends the message that ends a channel, whether the protocol knows it or not. Servers that do not know it ignore it.
    pub async fn announce_end(&mut self, channel: u8) -> Result<(), Gone> {
        self.message(Message::binary(vec![CLOSE, channel])).await
    }

    pub async fn ping(&mut self) -> Result<(), Gone> {
        self.message(Message::Ping(Bytes::new())).await
    }
}

/// The direction from the server.
pub struct Receiver {
    from: SplitStream<Socket>,
    server: String,
}

impl Receiver {
    /// Returns the next message with its channel, or `None` after the server has closed the connection in order.
    ///
    /// # Errors
    /// When the connection breaks, or the server does not even answer pings.
    pub async fn next(&mut self) -> Result<Option<(u8, Bytes)>> {
        loop {
            let message = match timeout(SILENCE, self.from.next()).await {
                Err(_) => {
                    return Err(self.broken(format!("nothing was received for {} seconds", SILENCE.as_secs())));
                }
                Ok(None | Some(Err(WebSocketError::ConnectionClosed))) => return Ok(None),
                Ok(Some(Err(error))) => return Err(self.broken(error.to_string())),
                Ok(Some(Ok(message))) => message,
            };
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                Message::Close(_) => {
                    // The next poll sends our own farewell.
                    if timeout(GOODBYE_WITHIN, self.from.next()).await.is_err() {
                        tracing::debug!("the server keeps the connection open after its end");
                    }
                    return Ok(None);
                }
                _ => continue,
            };
            if let Some(channel) = bytes.first() {
                return Ok(Some((*channel, bytes.slice(1..))));
            }
        }
    }

    fn broken(&self, reason: String) -> CliError {
        CliError::Lost { server: self.server.clone(), reason }
    }
}
