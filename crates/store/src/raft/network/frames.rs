//! Framing of messages in the body of a request or a response: each message is preceded by its length.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::raft::codec::{self, CodecError};

/// Maximum size of a message. A greater length comes from a peer that uses another protocol.
pub const MAX_FRAME_BYTES: usize = 64 << 20;
const LENGTH_BYTES: usize = 4;

pub type PeerBody = UnsyncBoxBody<Bytes, FrameError>;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the connection failed: {0}")]
    Connection(String),
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("the stream ended within a message")]
    Truncated,
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("cannot read the data to send: {0}")]
    Source(#[from] std::io::Error),
}

/// Returns a body of one message, without a length.
#[must_use]
pub fn single(message: Bytes) -> PeerBody {
    Full::new(message).map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body of many messages, encoded by [`frame`].
pub fn stream<S>(frames: S) -> PeerBody
where
    S: futures::Stream<Item = Result<Bytes, FrameError>> + Send + 'static,
{
    use futures::TryStreamExt;
    StreamBody::new(frames.map_ok(Frame::data)).boxed_unsync()
}

/// Encodes a message with its length in front.
///
/// # Errors
/// When it is too long.
pub fn frame<T: Serialize>(message: &T) -> Result<Bytes, FrameError> {
    codec::encode_with(|buffer| {
        buffer.extend_from_slice(&[0; LENGTH_BYTES]);
        codec::encode_into(message, buffer)?;
        let length = buffer.len() - LENGTH_BYTES;
        let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME_BYTES);
        buffer[..LENGTH_BYTES].copy_from_slice(&prefix.ok_or(FrameError::TooLong(length))?.to_be_bytes());
        Ok(())
    })
}

/// Reads framed messages from a body.
pub struct FrameReader<B> {
    body: B,
    buffer: BytesMut,
}

impl<B> FrameReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub fn new(body: B) -> Self {
        FrameReader { body, buffer: BytesMut::new() }
    }

    /// Reads the next message; `None` at the end of the body. Cancel-safe.
    ///
    /// # Errors
    /// When the body fails or holds no valid message. The stream cannot be used after an error.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                if length > MAX_FRAME_BYTES {
                    return Err(FrameError::TooLong(length));
                }
                if self.buffer.len() >= LENGTH_BYTES + length {
                    let message = codec::decode(&self.buffer[LENGTH_BYTES..LENGTH_BYTES + length])?;
                    self.buffer.advance(LENGTH_BYTES + length);
                    return Ok(Some(message));
                }
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated),
                Some(Err(error)) => return Err(FrameError::Connection(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn body_of(bytes: Vec<u8>, piece: usize) -> PeerBody {
        let pieces: Vec<_> = bytes.chunks(piece).map(Bytes::copy_from_slice).map(Ok).collect();
        stream(futures::stream::iter(pieces).boxed())
    }

    #[tokio::test]
    async fn messages_are_read_from_pieces_of_any_size() {
        let messages = ["".to_owned(), "a".to_owned(), "b".repeat(300)];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| frame(m).expect("short")).collect();
        for piece in [1, 3, 7, 1000] {
            let mut reader = FrameReader::new(body_of(bytes.clone(), piece));
            for message in &messages {
                assert_eq!(reader.next::<String>().await.expect("a message").as_ref(), Some(message));
            }
            assert_eq!(reader.next::<String>().await.expect("the end"), None);
        }
    }

    #[tokio::test]
    async fn a_cut_or_absurd_stream_is_an_error() {
        let mut bytes = frame(&"hello").expect("short").to_vec();
        bytes.pop();
        let cut = FrameReader::new(body_of(bytes, 100)).next::<String>().await;
        assert!(matches!(cut, Err(FrameError::Truncated)), "{cut:?}");
        let absurd = FrameReader::new(body_of(vec![0xff; 8], 100)).next::<String>().await;
        assert!(matches!(absurd, Err(FrameError::TooLong(_))), "{absurd:?}");
    }
}
