//! The bincode encoding used on disk and between members.

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
    #[error("{0} bytes are left over")]
    TrailingBytes(usize),
    #[error("a command of version {version}, and this program knows them up to version {newest}")]
    TooNew { version: CommandVersion, newest: CommandVersion },
}

thread_local! {
    /// Buffer for encoding a value whose length is not known yet.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Maximum capacity that a scratch buffer keeps between two uses.
const KEPT_SCRATCH_BYTES: usize = 1 << 20;

/// Encodes a value.
///
/// # Errors
/// When the type's `Serialize` fails; those of this crate do not.
pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    encode_with(|buffer| encode_into(value, buffer))
}

/// Returns the bytes that `write` writes, in an allocation of exactly their size.
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

/// Appends the encoding of a value to `buffer`.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, buffer, FORMAT)?;
    Ok(())
}

/// Decodes a `T` that takes up all of `bytes`.
///
/// # Errors
/// When `bytes` is not exactly one `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes)?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::TrailingBytes(bytes.len() - used)) }
}

/// Decodes a `T` from the beginning of `bytes`; returns it with its length in bytes.
///
/// # Errors
/// When `bytes` does not begin with a `T`.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    Ok(bincode::serde::decode_from_slice(bytes, FORMAT)?)
}
