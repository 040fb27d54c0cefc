//! The server side of SPDY/3.1, as `kubectl` up to 1.30 and the port-forward of every version speak it. Streams have no
//! flow control of their own: the connection's back pressure bounds the memory.

mod dictionary;
pub(super) mod frame;
mod headers;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::frame::{Decoder, Encoder, Frame};
use super::link::{Incoming, LinkEnd, Outgoing};
use super::{CLOSE_WITHIN, PING_EVERY};

/// Why a client's bytes are not SPDY/3.1.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame is not SPDY/3.1")]
    Version,
    #[error("a control frame of {bytes} bytes is too large")]
    TooLarge { bytes: usize },
    #[error("a control frame is too short")]
    Short,
    #[error("a header block is malformed or too large")]
    Headers,
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the client did not close its side in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Speaks SPDY on a connection until the client has gone, or until our side of the link is closed.
pub(super) async fn drive(io: impl AsyncRead + AsyncWrite, end: LinkEnd) {
    let (from_client, to_client) = tokio::io::split(io);
    let LinkEnd { incoming, outgoing, own } = end;
    let mut reading = std::pin::pin!(read(from_client, incoming, own));
    let ended = tokio::select! {
        ended = &mut reading => ended,
        written = write(to_client, outgoing) => match written {
            // The client closes the connection when it has read everything.
            Ok(()) => timeout(CLOSE_WITHIN, reading).await.map_err(ConnectionError::from).flatten(),
            Err(error) => Err(error),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a SPDY connection ended");
    }
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    incoming: tokio::sync::mpsc::Sender<Incoming>,
    own: tokio::sync::mpsc::WeakSender<Outgoing>,
) -> Result<(), ConnectionError> {
    let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::new());
    loop {
        while let Some(frame) = decoder.next(&mut buffer)? {
            let events = match frame {
                Frame::Open { stream, headers, is_last } => {
                    [Some(Incoming::Opened { stream, headers }), is_last.then_some(Incoming::Finished { stream })]
                }
                Frame::Data { stream, bytes, is_last } => {
                    let data = (!bytes.is_empty()).then_some(Incoming::Data { stream, bytes });
                    [data, is_last.then_some(Incoming::Finished { stream })]
                }
                Frame::Reset { stream } => [Some(Incoming::Reset { stream }), None],
                Frame::Ping { id } => {
                    // Even pings are answers to our own.
                    if let Some(own) = own.upgrade().filter(|_| id % 2 == 1) {
                        // A closed link answers no pings.
                        own.send(Outgoing::Pong { id }).await.ok();
                    }
                    continue;
                }
                Frame::GoAway => continue,
            };
            for event in events.into_iter().flatten() {
                // Nobody listens after the end of the streams; the rest is read up to the client's end.
                incoming.send(event).await.ok();
            }
        }
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut outgoing: tokio::sync::mpsc::Receiver<Outgoing>,
) -> Result<(), ConnectionError> {
    let mut encoder = Encoder::new()?;
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut next_ping = 2_u32;
    loop {
        let frame: Bytes = tokio::select! {
            message = outgoing.recv() => match message {
                None => return Ok(()),
                Some(Outgoing::Data { stream, bytes }) => frame::data(stream, &bytes, false),
                Some(Outgoing::Finish { stream }) => frame::data(stream, &[], true),
                Some(Outgoing::Accept { stream }) => encoder.reply(stream)?,
                Some(Outgoing::Refuse { stream }) => frame::refusal(stream),
                Some(Outgoing::Pong { id }) => frame::ping(id),
            },
            _ = pings.tick() => {
                next_ping = next_ping.wrapping_add(2);
                frame::ping(next_ping)
            }
        };
        to.write_all(&frame).await?;
        to.flush().await?;
    }
}
