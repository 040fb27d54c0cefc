//! A process that the test plays, and clients of both protocols.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{SinkExt, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::runtime::Process;
use crate::streams::link::link;
use crate::streams::spdy::frame::client::{self, Client};
use crate::streams::websocket::{Channels, Coding};
use crate::streams::{CLOSE_WITHIN, spdy, websocket};

const V5: Channels = Channels { coding: Coding::Binary, closes: true };
const DEADLINE: Duration = Duration::from_secs(60);
const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

#[derive(Default)]
struct Played {
    code: i64,
    sizes: Mutex<Vec<TerminalSize>>,
    is_abandoned: Mutex<bool>,
}

#[async_trait]
impl Process for Played {
    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        self.sizes.lock().push(size);
        Ok(())
    }

    async fn exit_code(&self) -> Result<i64, RuntimeError> {
        Ok(self.code)
    }

    async fn abandon(&self) -> Result<(), RuntimeError> {
        *self.is_abandoned.lock() = true;
        Ok(())
    }
}

/// Returns a process that echoes its input to both of its outputs, and ends with it.
fn echo(process: &Arc<Played>) -> Session {
    let (input, from_client) = duplex(64);
    let output = stream::unfold((from_client, Vec::new()), async |(mut from, mut queue): (DuplexStream, Vec<_>)| {
        if let Some(piece) = queue.pop() {
            return Some((Ok(piece), (from, queue)));
        }
        let mut buffer = [0; 32];
        let read = from.read(&mut buffer).await.expect("the input");
        let bytes = Bytes::copy_from_slice(&buffer[..read]);
        queue.push((Source::Stderr, bytes.clone()));
        (read > 0).then_some((Ok((Source::Stdout, bytes)), (from, queue)))
    });
    Session { output: output.boxed(), input: Box::new(input), process: Arc::clone(process) as Arc<dyn Process> }
}

/// Returns a process that writes without end, or nothing if `bytes` is empty, and never reads.
fn endless(process: &Arc<Played>, bytes: &'static [u8]) -> Session {
    let (input, kept) = duplex(64);
    let output = stream::unfold(kept, move |kept| async move {
        if bytes.is_empty() {
            std::future::pending::<()>().await;
        }
        Some((Ok((Source::Stdout, Bytes::from_static(bytes))), kept))
    });
    Session { output: output.boxed(), input: Box::new(input), process: Arc::clone(process) as Arc<dyn Process> }
}

async fn serve_websocket(io: DuplexStream, channels: Channels, version: u8, streams: Streams, session: Session) {
    let (link, end) = link();
    let roles = Roles::channels(streams);
    let driven = websocket::drive(io, channels, Some(roles.greeting()), end);
    tokio::join!(driven, run(link, roles, Vec::new(), version, async { Ok(session) }));
}

async fn serve_spdy(io: DuplexStream, streams: Streams, session: Session) {
    let (mut link, end) = link();
    let command = async {
        let (roles, early) = gather(&mut link, streams, 4).await.expect("all streams");
        run(link, roles, early, 4, async { Ok(session) }).await;
    };
    tokio::join!(spdy::drive(io, end), command);
}

/// Returns what arrived on each channel.
async fn read_all(client: &mut WebSocketStream<DuplexStream>) -> Vec<Vec<u8>> {
    let mut channels = vec![Vec::new(); 5];
    while let Some(message) = client.next().await {
        match message.expect("a message") {
            Message::Binary(bytes) => channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.expect("a reason").code), 1000, "readers see an orderly end");
            }
            _ => {}
        }
    }
    channels
}

#[tokio::test]
async fn a_closed_standard_input_ends_a_command_that_reads_it() {
    let process = Arc::new(Played { code: 5, ..Played::default() });
    let (ours, theirs) = duplex(1024);
    let serving = tokio::spawn(serve_websocket(theirs, V5, 5, ALL, echo(&process)));
    let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    let long = vec![b'x'; 1000];
    for message in [&b"\x00hello "[..], &[&[0][..], &long].concat(), b"\xff\x00"] {
        client.send(Message::binary(message.to_vec())).await.expect("sent");
    }
    let channels = read_all(&mut client).await;
    let expected = [b"hello ".to_vec(), long].concat();
    assert_eq!((&channels[1], &channels[2]), (&expected, &expected));
    let status: serde_json::Value = serde_json::from_slice(&channels[3]).expect("a status");
    assert_eq!(status["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "5" }));
    assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
    serving.await.expect("the server ends");
    assert!(!*process.is_abandoned.lock());
}

#[tokio::test]
async fn a_terminal_follows_the_clients_size() {
    let process = Arc::new(Played::default());
    let (ours, theirs) = duplex(1024);
    let streams = Streams { tty: true, stderr: false, ..ALL };
    let serving = tokio::spawn(serve_websocket(theirs, V5, 5, streams, echo(&process)));
    let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    for message in
        [&b"\x04{\"Width\":80,\"Hei"[..], b"\x04ght\":24}\n", b"\x04nonsense", b"\x04{\"Width\":1,\"Height\":2}"]
    {
        client.send(Message::binary(message.to_vec())).await.expect("sent");
    }
    let both = async {
        while process.sizes.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, both).await.expect("both sizes arrive");
    client.send(Message::binary(&b"\xff\x00"[..])).await.expect("sent");
    assert_eq!(read_all(&mut client).await[3], br#"{"metadata":{},"status":"Success"}"#);
    serving.await.expect("the server ends");
    let sizes = [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 1, height: 2 }];
    assert_eq!(*process.sizes.lock(), sizes);
}

#[tokio::test]
async fn a_command_is_killed_when_its_client_goes_away() {
    for (writes, input) in [(&b"x"[..], 0), (b"", 0), (b"", 200_000)] {
        let process = Arc::new(Played::default());
        let (ours, theirs) = duplex(1024);
        let serving = tokio::spawn(serve_websocket(theirs, V5, 5, ALL, endless(&process, writes)));
        let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let greeting = client.next().await.expect("a greeting").expect("a message");
        assert_eq!(greeting.into_data()[0], 1, "the connection is established");
        // A process that does not read stops its client.
        let mut message = vec![0; 1 + input];
        message[0] = 0;
        for _ in 0..20 {
            if timeout(Duration::from_millis(300), client.send(Message::binary(message.clone()))).await.is_err() {
                break;
            }
        }
        drop(client);
        timeout(10 * CLOSE_WITHIN, serving).await.expect("the server ends").expect("without a panic");
        assert!(*process.is_abandoned.lock(), "{writes:?} {input}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_command_in_bounded_memory() {
    let process = Arc::new(Played::default());
    let pieces = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&pieces);
    let mut session = endless(&process, b"");
    session.output = stream::repeat_with(move || {
        *counter.lock() += 1;
        Ok((Source::Stdout, Bytes::from_static(&[0; 1024])))
    })
    .boxed();
    let (client, theirs) = duplex(1024);
    let serving = tokio::spawn(serve_websocket(theirs, V5, 5, ALL, session));
    let taken = || *pieces.lock();
    let stopped = async {
        let (mut before, mut unchanged) = (0, 0);
        while unchanged < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            unchanged = if taken() == before && before > 0 { unchanged + 1 } else { 0 };
            before = taken();
            assert!(before < 32, "{before} pieces were taken from the command");
        }
    };
    timeout(DEADLINE, stopped).await.expect("the command stops");
    drop(client);
    timeout(10 * CLOSE_WITHIN, serving).await.expect("the server ends").expect("without a panic");
    assert!(*process.is_abandoned.lock());
}

#[tokio::test]
async fn a_spdy_client_gets_each_stream_and_the_exit_code() {
    let process = Arc::new(Played { code: 3, ..Played::default() });
    let (mut ours, theirs) = duplex(1024);
    let serving = tokio::spawn(serve_spdy(theirs, ALL, echo(&process)));
    let mut opener = Client::new();
    let mut sent = Vec::new();
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        sent.extend(opener.open(stream, &[("streamtype", kind)]));
        if stream == 3 {
            // Input may come before the last stream is open.
            sent.extend(client::data(3, b"early ", false));
        }
    }
    sent.extend(client::data(3, b"late", true));
    ours.write_all(&sent).await.expect("sent");
    let mut received = Vec::new();
    let mut ends = 0;
    while ends < 3 {
        assert_ne!(ours.read_buf(&mut received).await.expect("the connection is open"), 0);
        ends = client::frames_so_far(&received).iter().filter(|(kind, _, flags, _)| (*kind, *flags) == (0, 1)).count();
    }
    let frames = client::frames_so_far(&received);
    let replies: Vec<_> = frames.iter().filter(|frame| frame.0 == 2).map(|frame| frame.1).collect();
    assert_eq!(replies, [1, 3, 5, 7]);
    let of = |stream| -> Vec<u8> {
        frames.iter().filter(|frame| (frame.0, frame.1) == (0, stream)).flat_map(|frame| frame.3.clone()).collect()
    };
    assert_eq!((of(5), of(7)), (b"early late".to_vec(), b"early late".to_vec()));
    let status: serde_json::Value = serde_json::from_slice(&of(1)).expect("a status");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    drop(ours);
    serving.await.expect("the server ends");
    assert!(!*process.is_abandoned.lock());
}

#[test]
fn old_clients_get_a_text_instead_of_a_status() {
    assert_eq!(Outcome::Code(0).report(1), "");
    assert_eq!(Outcome::Code(2).report(3), "command terminated with non-zero exit code: exit status 2");
    let failed = Outcome::Failed("no such container".to_owned());
    assert_eq!(failed.report(1), "Internal error occurred: no such container");
    let status: serde_json::Value = serde_json::from_slice(&failed.report(4)).expect("a status");
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
}
