//! Streamed responses over a WebSocket, for clients such as browsers that cannot read them otherwise: the events of a watch
//! and the lines of a log. Messages from the client are read and dropped.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use http::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use quorate_api::{Reason, Status};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use crate::headers::{TOKEN_PROTOCOL, elements, is_websocket};
use crate::response::{Body, Request, Response, Takeover};
use crate::tunnel::Duplex;

/// Maximum size of a client's message, in bytes. Such messages are read and dropped.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Maximum time to send one message. A slower client is disconnected.
const SEND_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 120 });
/// Time for the client to close its side after the stream has ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
const JSON: &str = "application/json";
const VERSION: &str = "13";
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
    /// Returns the messages of a piece of the stream. A piece holds whole lines if they are documents.
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

/// Chooses one of the requested protocols, and returns its name; `None` if the client requests none. Protocols that only
/// carry a token are skipped.
fn negotiate(content: Content, headers: &HeaderMap) -> Result<(Coding, Option<&str>), Status> {
    let requested = elements(headers, &SEC_WEBSOCKET_PROTOCOL);
    let requested: Vec<_> = requested.filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL)).collect();
    match content {
        Content::Documents if requested.len() > 1 => {
            Err(Status::bad_request("a watch takes one WebSocket protocol at most"))
        }
        Content::Documents => Ok((Coding::Lines, requested.first().copied())),
        Content::Bytes if requested.is_empty() => Ok((Coding::Binary, None)),
        Content::Bytes => {
            let coding = |name: &&str| match *name {
                BINARY => Some((Coding::Binary, Some(BINARY))),
                BASE64_TEXT => Some((Coding::Base64, Some(BASE64_TEXT))),
                _ => None,
            };
            let refused = || {
                let served = [BINARY, BASE64_TEXT];
                let message = format!("requested protocol(s) are not supported: {requested:?}; supports {served:?}");
                Status::new(Reason::Forbidden, message)
            };
            requested.iter().find_map(coding).ok_or_else(refused)
        }
    }
}

/// Returns the headers of the response that switches protocols (RFC 6455, section 4.2.2).
fn handshake(request: &HeaderMap, protocol: Option<&str>) -> Result<HeaderMap, Status> {
    if request.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Status::bad_request(format!("{SEC_WEBSOCKET_VERSION} must be {VERSION}")));
    }
    let missing = || Status::bad_request(format!("the header {SEC_WEBSOCKET_KEY} is missing"));
    let key = request.get(SEC_WEBSOCKET_KEY).ok_or_else(missing)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
    let mut headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).map_err(Status::internal)?);
    }
    Ok(headers)
}

/// Moves the response onto a WebSocket if the request asks for one; otherwise returns it unchanged.
///
/// # Errors
/// `BadRequest` for a handshake that is incomplete, `Forbidden` for one that names only protocols that are not served,
/// `NotAcceptable` for a watch in another form than JSON.
pub(crate) fn over_websocket(request: &Request, response: Response, content: Content) -> Result<Response, Status> {
    if request.method != Method::GET || !is_websocket(&request.headers) {
        return Ok(response);
    }
    if content == Content::Documents && response.headers.get(CONTENT_TYPE).is_none_or(|given| given != JSON) {
        return Err(Status::new(Reason::NotAcceptable, format!("a watch over a WebSocket is served as {JSON} only")));
    }
    let (coding, protocol) = negotiate(content, &request.headers)?;
    let headers = handshake(&request.headers, protocol)?;
    let pieces = match response.body {
        Body::Stream(pieces) => pieces,
        Body::Full(bytes) => stream::iter([Ok(bytes)]).boxed(),
        Body::List(_) | Body::Passed(_) | Body::Upgrade(_) => {
            return Err(Status::internal("only streams are sent over a WebSocket"));
        }
    };
    // An empty message tells the client that its log is open, as in Kubernetes.
    let greeting = (content == Content::Bytes).then(|| Ok(Bytes::new()));
    let messages = stream::iter(greeting).chain(pieces).flat_map(move |piece| {
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
enum SendError {
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    #[error("the client did not read in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

/// Sends messages until the stream ends, the client goes, or this server stops.
async fn send(client: impl Duplex, messages: Messages, shutdown: CancellationToken) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let ended = async {
        let stopping = async {
            shutdown.cancelled().await;
            sleep(CLOSE_WITHIN).await;
        };
        let code = tokio::select! {
            code = send_all(&mut socket, messages, &shutdown) => code?,
            // A client that does not take its message must not delay the end of this server.
            () = stopping => return Ok(()),
        };
        let Some(code) = code else { return Ok(()) };
        timeout(CLOSE_WITHIN, async {
            socket.close(Some(CloseFrame { code, reason: "".into() })).await?;
            while let Some(message) = socket.next().await {
                message?;
            }
            Ok::<(), SendError>(())
        })
        .await?
    };
    match ended.await {
        Ok(()) | Err(SendError::WebSocket(WebSocketError::ConnectionClosed)) => {}
        Err(error) => tracing::debug!(%error, "a WebSocket ended"),
    }
}

/// Sends messages, and returns the code to close the socket with; `None` when the client has closed it.
///
/// Reading a ping queues a pong, so nothing is read while the client does not take what is queued.
async fn send_all<IO: Duplex>(
    socket: &mut WebSocketStream<IO>,
    mut messages: Messages,
    shutdown: &CancellationToken,
) -> Result<Option<CloseCode>, SendError> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Some(CloseCode::Away)),
            message = messages.next() => match message {
                Some(Ok(message)) => timeout(SEND_WITHIN, socket.send(message)).await??,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a stream over a WebSocket failed");
                    return Ok(Some(CloseCode::Error));
                }
                None => return Ok(Some(CloseCode::Normal)),
            },
            received = socket.next() => match received {
                Some(Ok(_)) => timeout(SEND_WITHIN, socket.flush()).await??,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

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
        for (requested, expected) in cases {
            assert_eq!(negotiate(Content::Bytes, &asking(requested)).ok(), expected, "{requested}");
        }
        let headers = asking("base64.binary.k8s.io");
        assert_eq!(negotiate(Content::Documents, &headers).ok(), Some((Coding::Lines, Some(BASE64_TEXT))));
        assert!(negotiate(Content::Documents, &asking("a, b")).is_err());
        let with_token = asking("base64url.bearer.authorization.k8s.io.c2VjcmV0, binary.k8s.io");
        for content in [Content::Bytes, Content::Documents] {
            assert_eq!(negotiate(content, &with_token).ok().and_then(|(_, name)| name), Some(BINARY), "{content:?}");
        }
    }

    #[test]
    fn a_handshake_needs_its_key_and_version() {
        let mut headers = asking("");
        assert!(handshake(&headers, None).is_err());
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert!(handshake(&headers, None).is_err());
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        // The example of RFC 6455, section 1.3.
        assert_eq!(handshake(&headers, None).expect("complete")[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
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

    /// A client of a server that sends these messages, and the server's end.
    async fn served(messages: Messages) -> (WebSocketStream<DuplexStream>, CancellationToken, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(256);
        let shutdown = CancellationToken::new();
        let sending = tokio::spawn(send(far, messages, shutdown.clone()));
        (WebSocketStream::from_raw_socket(near, Role::Client, None).await, shutdown, sending)
    }

    async fn ends(sending: JoinHandle<()>) {
        timeout(10 * (SEND_WITHIN + CLOSE_WITHIN), sending).await.expect("ends in time").expect("without a panic");
    }

    async fn rest(client: &mut WebSocketStream<DuplexStream>) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            seen.push(message);
        }
        seen
    }

    fn closed(code: CloseCode) -> Message {
        Message::Close(Some(CloseFrame { code, reason: "".into() }))
    }

    #[tokio::test]
    async fn pings_are_answered_and_a_client_can_close() {
        let (mut client, _shutdown, sending) = served(pieces(3).chain(stream::pending()).boxed()).await;
        client.send(Message::Ping(Bytes::from_static(b"?"))).await.expect("open");
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push(client.next().await.expect("a message").expect("open"));
        }
        assert!(seen.contains(&Message::Pong(Bytes::from_static(b"?"))), "{seen:?}");
        client.close(None).await.expect("open");
        rest(&mut client).await;
        ends(sending).await;
    }

    #[tokio::test]
    async fn the_end_of_a_stream_is_told() {
        let failing = || stream::iter([Err(std::io::Error::other("lost"))]).boxed();
        for (messages, code) in [(pieces(1), CloseCode::Normal), (pieces(1).chain(failing()).boxed(), CloseCode::Error)]
        {
            let (mut client, _shutdown, sending) = served(messages).await;
            assert_eq!(rest(&mut client).await, [Message::text("0"), closed(code)]);
            ends(sending).await;
        }
        let (mut client, shutdown, sending) = served(stream::pending().boxed()).await;
        shutdown.cancel();
        assert_eq!(rest(&mut client).await, [closed(CloseCode::Away)]);
        ends(sending).await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_disconnected() {
        let (_client, _shutdown, sending) = served(pieces(1_000_000)).await;
        ends(sending).await;

        // Its pings are not read either, once their answers are not taken.
        let (mut client, _shutdown, sending) = served(stream::pending().boxed()).await;
        while client.send(Message::Ping(Bytes::from_static(&[0; 125]))).await.is_ok() {}
        ends(sending).await;

        let (_client, shutdown, sending) = served(pieces(1_000_000)).await;
        shutdown.cancel();
        ends(sending).await;
    }
}
