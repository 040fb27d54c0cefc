//! Streamed responses over a WebSocket, for clients that have nothing else, as browsers: the events of a watch and the
//! lines of a log. Messages of the client have no meaning.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use quorate_api::{Reason, Status};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use crate::headers::{elements, is_websocket};
use crate::response::{Body, Request, Response, Takeover};
use crate::tunnel::Duplex;

/// Maximum size of a client's message, in bytes. Such messages are read and dropped.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Time in which a client takes a message. A client that does not read for longer has gone.
const SEND_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 120 });
/// Time for the client to close its side after the stream has ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
const JSON: &str = "application/json";
const BINARY: &str = "binary.k8s.io";
const BASE64_TEXT: &str = "base64.binary.k8s.io";

/// The content of a stream, which decides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Documents of JSON, one on each line. Each is a text message, whatever protocol the client names.
    Documents,
    /// Bytes, in binary messages or as base64 in text messages.
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Lines,
    Binary,
    Base64,
}

type Messages = BoxStream<'static, Result<Message, std::io::Error>>;

impl Coding {
    /// Returns the messages of a piece of the stream. A piece of documents ends at the end of a line.
    fn messages(self, piece: &Bytes) -> Vec<Message> {
        let text = |bytes: &[u8]| Utf8Bytes::try_from(piece.slice_ref(bytes)).map(Message::Text);
        match self {
            Coding::Lines => {
                let lines = piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                lines.map(|line| text(line).unwrap_or_else(|_| Message::Binary(piece.slice_ref(line)))).collect()
            }
            Coding::Binary => vec![Message::Binary(piece.clone())],
            Coding::Base64 => vec![Message::text(BASE64.encode(piece))],
        }
    }
}

/// Chooses the client's protocol, and returns its name if the client has named one.
fn negotiate(content: Content, headers: &HeaderMap) -> Result<(Coding, Option<&str>), Status> {
    let asked: Vec<_> = elements(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    match content {
        Content::Documents if asked.len() > 1 => {
            Err(Status::bad_request("a watch takes one WebSocket protocol at most"))
        }
        Content::Documents => Ok((Coding::Lines, asked.first().copied())),
        Content::Bytes if asked.is_empty() => Ok((Coding::Binary, None)),
        Content::Bytes => {
            let coding = |name: &&str| match *name {
                BINARY => Some((Coding::Binary, Some(BINARY))),
                BASE64_TEXT => Some((Coding::Base64, Some(BASE64_TEXT))),
                _ => None,
            };
            let refused = || {
                let served = [BINARY, BASE64_TEXT];
                Status::bad_request(format!("requested protocol(s) are not supported: {asked:?}; supports {served:?}"))
            };
            asked.iter().find_map(coding).ok_or_else(refused)
        }
    }
}

/// Returns the headers of the response that switches protocols (RFC 6455, section 4.2.2).
fn switched(request: &HeaderMap, protocol: Option<&str>) -> Result<HeaderMap, Status> {
    let bad = |name: &HeaderName| Status::bad_request(format!("a WebSocket needs another {name} header"));
    if request.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad(&SEC_WEBSOCKET_VERSION));
    }
    let key = request.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad(&SEC_WEBSOCKET_KEY))?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
    let mut headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_str(protocol).map_err(|_| bad(&SEC_WEBSOCKET_PROTOCOL))?;
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(headers)
}

/// Returns the response as the client wants it: as it is, or over a WebSocket when the request asks for one.
///
/// # Errors
/// `BadRequest` for a handshake that is incomplete, or that names only protocols that are not served; `NotAcceptable` for a
/// watch in another form than JSON.
pub(crate) fn carried(request: &Request, response: Response, content: Content) -> Result<Response, Status> {
    if !is_websocket(&request.headers) {
        return Ok(response);
    }
    if content == Content::Documents && response.headers.get(CONTENT_TYPE).is_none_or(|given| given != JSON) {
        return Err(Status::new(Reason::NotAcceptable, format!("a watch over a WebSocket is served as {JSON} only")));
    }
    let (coding, protocol) = negotiate(content, &request.headers)?;
    let headers = switched(&request.headers, protocol)?;
    let pieces = match response.body {
        Body::Stream(pieces) => pieces,
        Body::Full(bytes) => stream::iter([Ok(bytes)]).boxed(),
        Body::List(_) | Body::Passed(_) | Body::Upgrade(_) => {
            return Err(Status::internal("only streams are carried by a WebSocket"));
        }
    };
    let messages = pieces.flat_map(move |piece| {
        let messages = match piece {
            Ok(piece) => coding.messages(&piece).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(messages)
    });
    let (messages, shutdown) = (messages.boxed(), request.connection.shutdown.clone());
    let takeover: Takeover = Box::new(move |client| send(client, messages, shutdown).boxed());
    Ok(Response { code: StatusCode::SWITCHING_PROTOCOLS, headers, body: Body::Upgrade(takeover) })
}

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    #[error("the stream failed: {0}")]
    Stream(#[from] std::io::Error),
    #[error("the client did not read in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Sends messages until the stream ends, the client goes, or this server stops.
async fn send(client: impl Duplex, mut messages: Messages, shutdown: CancellationToken) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let mut reading = std::pin::pin!(async {
        // Reading also answers pings, and the client's close.
        while let Some(message) = from_client.next().await {
            message?;
        }
        Ok::<(), Ended>(())
    });
    let writing = async {
        let code = loop {
            match messages.next().await {
                Some(Ok(message)) => timeout(SEND_WITHIN, to_client.send(message)).await??,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a stream over a WebSocket failed");
                    break CloseCode::Error;
                }
                None => break CloseCode::Normal,
            }
        };
        let goodbye = Message::Close(Some(CloseFrame { code, reason: "".into() }));
        timeout(CLOSE_WITHIN, to_client.send(goodbye)).await??;
        Ok::<(), Ended>(())
    };
    let ended = tokio::select! {
        read = &mut reading => read,
        written = writing => match written {
            Ok(()) => timeout(CLOSE_WITHIN, reading).await.map_err(Ended::from).flatten(),
            Err(error) => Err(error),
        },
        () = shutdown.cancelled() => Ok(()),
    };
    match ended {
        Ok(()) | Err(Ended::WebSocket(WebSocketError::ConnectionClosed)) => {}
        Err(error) => tracing::debug!(%error, "a WebSocket ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(protocols: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !protocols.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocols).expect("a header"));
        }
        headers
    }

    #[test]
    fn protocols_decide_the_form_of_bytes() {
        let cases = [
            ("", Some((Coding::Binary, None))),
            ("binary.k8s.io", Some((Coding::Binary, Some(BINARY)))),
            ("other, base64.binary.k8s.io, binary.k8s.io", Some((Coding::Base64, Some(BASE64_TEXT)))),
            ("v4.channel.k8s.io", None),
        ];
        for (asked, expected) in cases {
            assert_eq!(negotiate(Content::Bytes, &asking(asked)).ok(), expected, "{asked}");
        }
        let headers = asking("base64.binary.k8s.io");
        assert_eq!(negotiate(Content::Documents, &headers).ok(), Some((Coding::Lines, Some(BASE64_TEXT))));
        assert!(negotiate(Content::Documents, &asking("a, b")).is_err());
    }

    #[test]
    fn a_handshake_needs_its_key_and_version() {
        let mut headers = asking("");
        assert!(switched(&headers, None).is_err());
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert!(switched(&headers, None).is_err());
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        // The example of RFC 6455, section 1.3.
        assert_eq!(switched(&headers, None).expect("complete")[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_document_is_a_message() {
        let piece = Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(Coding::Lines.messages(&piece), [Message::text("{\"a\":1}"), Message::text("{\"b\":2}")]);
        assert_eq!(Coding::Base64.messages(&Bytes::from_static(b"ab")), [Message::text("YWI=")]);
    }

    fn pieces(count: usize) -> Messages {
        stream::iter(0..count).map(|number| Ok(Message::text(number.to_string()))).boxed()
    }

    async fn client(io: tokio::io::DuplexStream) -> WebSocketStream<tokio::io::DuplexStream> {
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    #[tokio::test]
    async fn a_stream_ends_with_a_close_and_pings_are_answered() {
        let (near, far) = tokio::io::duplex(256);
        let sending = tokio::spawn(send(far, pieces(3).chain(stream::pending()).boxed(), CancellationToken::new()));
        let mut client = client(near).await;
        client.send(Message::Ping(Bytes::from_static(b"?"))).await.expect("open");
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push(client.next().await.expect("a message").expect("open"));
        }
        assert!(seen.contains(&Message::Pong(Bytes::from_static(b"?"))), "{seen:?}");
        client.close(None).await.expect("open");
        while client.next().await.is_some() {}
        sending.await.expect("ends with its client");

        let (near, far) = tokio::io::duplex(256);
        let sending = tokio::spawn(send(far, pieces(1), CancellationToken::new()));
        let mut client = self::client(near).await;
        let mut seen = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            seen.push(message);
        }
        let normal = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
        assert_eq!(seen, [Message::text("0"), normal]);
        sending.await.expect("ends with its stream");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_dropped() {
        let (near, far) = tokio::io::duplex(64);
        let sending = tokio::spawn(send(far, pieces(1_000_000), CancellationToken::new()));
        sending.await.expect("ends without its client");
        drop(near);
    }
}
