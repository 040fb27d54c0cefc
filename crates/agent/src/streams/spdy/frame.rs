//! The frames of SPDY/3.1 that a server reads and writes. Pure; memory is bounded by the limits here.

use bytes::{Buf, Bytes, BytesMut};

use super::FrameError;
use super::headers::{Deflater, Inflater};
use crate::streams::link::PIECE_BYTES;

const HEADER_BYTES: usize = 8;
const VERSION: u16 = 0x8003;
const FIN: u8 = 1;
/// Maximum size of a control frame, in bytes.
const MAX_CONTROL_BYTES: usize = 64 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The code of a reset for a stream that is refused.
const REFUSED_STREAM: u32 = 3;

/// A frame from the client. Other frames have no meaning for a server and are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
        is_last: bool,
    },
    /// A piece of a data frame. `is_last` ends the client's side of the stream.
    Data {
        stream: u32,
        bytes: Bytes,
        is_last: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    /// The client opens no more streams.
    GoAway,
}

/// Splits a connection's bytes into frames.
pub(super) struct Decoder {
    inflater: Inflater,
    /// The data frame that is being read: its stream, the bytes that are missing, and whether it ends the stream.
    data: Option<(u32, usize, bool)>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder { inflater: Inflater::new(), data: None }
    }

    /// Takes the next frame out of `buffer`, or returns `None` when more bytes are needed. Data frames come in pieces, so
    /// `buffer` never has to hold a large one.
    ///
    /// # Errors
    /// When the bytes are not SPDY/3.1, or exceed a limit. The connection cannot be read any more.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some((stream, left, is_last)) = self.data {
                if buffer.is_empty() && left > 0 {
                    return Ok(None);
                }
                let bytes = buffer.split_to(left.min(buffer.len()).min(PIECE_BYTES)).freeze();
                let left = left - bytes.len();
                self.data = (left > 0).then_some((stream, left, is_last));
                return Ok(Some(Frame::Data { stream, bytes, is_last: is_last && left == 0 }));
            }
            let Some(head) = buffer.first_chunk::<HEADER_BYTES>().copied() else { return Ok(None) };
            let [a, b, c, d, flags, x, y, z] = head;
            let length = usize::from(x) << 16 | usize::from(y) << 8 | usize::from(z);
            let is_last = flags & FIN != 0;
            if a & 0x80 == 0 {
                buffer.advance(HEADER_BYTES);
                self.data = Some((u32::from_be_bytes([a, b, c, d]), length, is_last));
                continue;
            }
            if u16::from_be_bytes([a, b]) != VERSION {
                return Err(FrameError::Version);
            }
            if length > MAX_CONTROL_BYTES {
                return Err(FrameError::TooLarge { bytes: length });
            }
            if buffer.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            buffer.advance(HEADER_BYTES);
            let payload = buffer.split_to(length);
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), is_last, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, is_last: bool, payload: &[u8]) -> Result<Option<Frame>, FrameError> {
        let number = |at: usize| -> Result<u32, FrameError> {
            let bytes = payload.get(at..).and_then(<[u8]>::first_chunk::<4>).ok_or(FrameError::Short)?;
            Ok(u32::from_be_bytes(*bytes))
        };
        let stream = || number(0).map(|id| id & 0x7fff_ffff);
        Ok(match kind {
            SYN_STREAM => {
                let headers = self.inflater.read(payload.get(10..).ok_or(FrameError::Short)?)?;
                Some(Frame::Open { stream: stream()?, headers, is_last })
            }
            // The headers are not used, but they change the state of the compression.
            SYN_REPLY | HEADERS => {
                self.inflater.read(payload.get(4..).ok_or(FrameError::Short)?)?;
                None
            }
            RST_STREAM => Some(Frame::Reset { stream: stream()? }),
            PING => Some(Frame::Ping { id: number(0)? }),
            GOAWAY => Some(Frame::GoAway),
            // Settings, and window updates: the streams of Kubernetes' clients have no flow control of their own.
            _ => None,
        })
    }
}

/// Writes frames.
pub(super) struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// # Errors
    /// When the header compression cannot be set up.
    pub(super) fn new() -> Result<Self, FrameError> {
        Ok(Encoder { deflater: Deflater::new()? })
    }

    /// Returns the acceptance of a stream.
    ///
    /// # Errors
    /// When the compression fails.
    pub(super) fn reply(&mut self, stream: u32) -> Result<Bytes, FrameError> {
        let block = self.deflater.write(&[])?;
        Ok(control(SYN_REPLY, &[&stream.to_be_bytes(), &block]))
    }
}

fn control(kind: u16, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(HEADER_BYTES + length);
    frame.extend(VERSION.to_be_bytes());
    frame.extend(kind.to_be_bytes());
    frame.push(0);
    frame.extend(size(length));
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame.into()
}

/// The 24 bits of a frame's length.
fn size(length: usize) -> [u8; 3] {
    let [.., x, y, z] = length.to_be_bytes();
    [x, y, z]
}

pub(super) fn refusal(stream: u32) -> Bytes {
    control(RST_STREAM, &[&stream.to_be_bytes(), &REFUSED_STREAM.to_be_bytes()])
}

pub(super) fn ping(id: u32) -> Bytes {
    control(PING, &[&id.to_be_bytes()])
}

/// Returns a data frame. `bytes` has at most [`PIECE_BYTES`].
pub(super) fn data(stream: u32, bytes: &[u8], is_last: bool) -> Bytes {
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
    frame.extend(stream.to_be_bytes());
    frame.push(if is_last { FIN } else { 0 });
    frame.extend(size(bytes.len()));
    frame.extend_from_slice(bytes);
    frame.into()
}

#[cfg(test)]
pub(in crate::streams) mod client {
    //! The client's side of SPDY/3.1, with which the tests write frames.

    use super::{Deflater, HEADER_BYTES, control};
    use crate::streams::spdy::FrameError;

    pub(in crate::streams) struct Client(Deflater);

    impl Client {
        pub(in crate::streams) fn new() -> Self {
            Client(Deflater::new().expect("a dictionary"))
        }

        pub(in crate::streams) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
            let block: Result<_, FrameError> = self.0.write(headers);
            control(super::SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], &block.expect("a block")]).to_vec()
        }
    }

    pub(in crate::streams) fn reset(stream: u32) -> Vec<u8> {
        control(super::RST_STREAM, &[&stream.to_be_bytes(), &5_u32.to_be_bytes()]).to_vec()
    }

    pub(in crate::streams) fn data(stream: u32, bytes: &[u8], is_last: bool) -> Vec<u8> {
        super::data(stream, bytes, is_last).to_vec()
    }

    /// Splits what the server has written so far into kinds (0 for data), streams, flags and payloads.
    pub(in crate::streams) fn frames_so_far(mut bytes: &[u8]) -> Vec<(u16, u32, u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(head) = bytes.first_chunk::<HEADER_BYTES>() {
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + length).map(<[u8]>::to_vec) else { break };
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            if head[0] & 0x80 == 0 {
                frames.push((0, first, head[4], payload));
            } else {
                let id = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                frames.push((u16::from_be_bytes([head[2], head[3]]), id, head[4], payload));
            }
            bytes = &bytes[HEADER_BYTES + length..];
        }
        frames
    }
}

#[cfg(test)]
mod tests;
