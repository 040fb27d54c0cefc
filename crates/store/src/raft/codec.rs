//! bincode, as it stands on disk and on the wire.

use std::cell::RefCell;

use bincode::config::{Configuration, standard};
use bytes::Bytes;
use quorate_mvcc::CommandVersion;
use serde::Serialize;
use serde::de::DeserializeOwned;

const FORMAT: Configuration = standard();

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("cannot encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    #[error("cannot decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    #[error("a command of version {version}, and this program knows them up to version {newest}")]
    TooNew { version: CommandVersion, newest: CommandVersion },
}

thread_local! {
    /// Where things are encoded before their length is known.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew past this is given back.
const KEPT_SCRATCH_BYTES: usize = 1 << 20;

/// # Errors
/// When a type's `Serialize` fails; ours do not.
pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    encode_with(|buffer| encode_into(value, buffer))
}

/// What `write` writes, in memory of its own size.
///
/// # Errors
/// Those of `write`.
pub fn encode_with<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Bytes, E> {
    SCRATCH.with_borrow_mut(|buffer| {
        buffer.clear();
        let written = write(buffer).map(|()| Bytes::copy_from_slice(buffer));
        buffer.shrink_to(KEPT_SCRATCH_BYTES);
        written
    })
}

/// Encodes behind what `buffer` holds already.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, buffer, FORMAT)?;
    Ok(())
}

/// # Errors
/// When `bytes` is not exactly one `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes)?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::TrailingBytes(bytes.len() - used)) }
}

/// Decodes a `T` from the beginning of `bytes`; says how many bytes it took.
///
/// # Errors
/// When `bytes` does not begin with a `T`.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    Ok(bincode::serde::decode_from_slice(bytes, FORMAT)?)
}
