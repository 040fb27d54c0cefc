//! One forwarded connection: a client's TCP connection, and two channels of a WebSocket to the pod's port.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::channels::{self, Gone, PING_EVERY, Receiver, Sender, V4};
use crate::error::Result;
use crate::path::RequestPath;
use crate::transport::Transport;

const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Size of a piece, in bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// The first message of each channel is the port's number, in bytes.
const GREETING_BYTES: usize = 2;
/// After the client has ended its side, the connection ends if nothing arrives for so many pings: the client may be gone,
/// and not every server passes its end on to the pod.
const QUIET_PINGS: u32 = 4;

/// Copies both ways until the pod's side has ended. Returns the pod's error.
///
/// # Errors
/// When the server refuses the request or the connection to it breaks.
pub async fn forward(transport: &Transport, path: RequestPath, client: TcpStream) -> Result<Option<String>> {
    let (sender, receiver) = channels::open(transport, path, &[V4]).await?;
    let (from_client, to_client) = client.into_split();
    let moved = AtomicBool::new(false);
    tokio::select! {
        ended = receive(receiver, to_client, &moved) => ended,
        () = send(sender, from_client, &moved) => Ok(None),
    }
}

async fn receive(mut receiver: Receiver, mut to: OwnedWriteHalf, moved: &AtomicBool) -> Result<Option<String>> {
    let mut greetings = [GREETING_BYTES; 2];
    let mut failure = Vec::new();
    while let Some((channel, mut bytes)) = receiver.next().await? {
        let Some(greeting) = greetings.get_mut(usize::from(channel)) else { continue };
        let skipped = bytes.len().min(*greeting);
        drop(bytes.split_to(skipped));
        *greeting -= skipped;
        match channel {
            ERROR => failure.extend_from_slice(&bytes),
            DATA => {
                moved.store(true, Ordering::Relaxed);
                if let Err(error) = to.write_all(&bytes).await {
                    tracing::debug!(%error, "the client reads no more");
                    return Ok(None);
                }
            }
            _ => {}
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "the client went away before the end");
    }
    Ok((!failure.is_empty()).then(|| String::from_utf8_lossy(&failure).into_owned()))
}

/// Sends the client's bytes, its end, and pings. Returns when the client is taken as gone.
async fn send(mut sender: Sender, mut from: OwnedReadHalf, moved: &AtomicBool) {
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut is_open, mut quiet) = (true, 0);
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            read = from.read(&mut buffer), if is_open => match read {
                Ok(0) => {
                    is_open = false;
                    sender.announce_end(DATA).await
                }
                Ok(read) => sender.send(DATA, &buffer[..read]).await,
                Err(error) => {
                    tracing::debug!(%error, "the client broke its connection");
                    return;
                }
            },
            _ = pings.tick() => {
                quiet = if is_open || moved.swap(false, Ordering::Relaxed) { 0 } else { quiet + 1 };
                if quiet > QUIET_PINGS {
                    return;
                }
                sender.ping().await
            }
        };
        if let Err(Gone) = sent {
            return std::future::pending().await;
        }
    }
}
