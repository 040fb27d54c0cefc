//! CBOR documents (RFC 8949), as Kubernetes reads and writes them: JSON's data model, with the tag of self-described CBOR
//! in front.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value as Cbor;
use ciborium::value::Integer;
use serde_json::{Map, Number, Value};

/// The media type of such documents.
pub const MEDIA_TYPE: &str = "application/cbor";

/// The tag of self-described CBOR (RFC 8949, section 3.4.6).
const SELF_DESCRIBED: u64 = 55_799;
const SELF_DESCRIBED_BYTES: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Tags of text (RFC 8949, section 3.4): a date, and bytes that JSON shows in base64.
const DATE_TIME: u64 = 0;
const SHOWN_AS_BASE64: u64 = 22;
/// Maximum nesting depth of a document, as `serde_json` has it.
const MAX_DEPTH: usize = 128;

/// The reason why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum CborError {
    #[error("cbor: {0}")]
    Syntax(String),
    #[error("cbor: {0} bytes follow the document")]
    Trailing(usize),
    #[error("cbor: duplicate map key {0:?}")]
    Duplicate(String),
    #[error("cbor: the key of a map is not a string")]
    Key,
    #[error("cbor: a byte string is not UTF-8")]
    Utf8,
    #[error("cbor: tag {0} is not supported")]
    Tag(u64),
    #[error("cbor: a number is out of range")]
    Number,
    #[error("cbor: a value has no form in JSON")]
    NoForm,
}

/// Decodes one document.
///
/// # Errors
/// For malformed bytes, duplicate keys, and values that JSON does not have.
pub fn decode(mut bytes: &[u8]) -> Result<Value, CborError> {
    let value: Cbor = ciborium::de::from_reader_with_recursion_limit(&mut bytes, MAX_DEPTH)
        .map_err(|error| CborError::Syntax(error.to_string()))?;
    if bytes.is_empty() { to_json(value) } else { Err(CborError::Trailing(bytes.len())) }
}

/// Encodes a document.
///
/// # Errors
/// Never for a value that was decoded; the library's errors are those of its writer.
pub fn encode(value: &Value) -> Result<Vec<u8>, ciborium::ser::Error<std::io::Error>> {
    let mut out = SELF_DESCRIBED_BYTES.to_vec();
    ciborium::into_writer(value, &mut out)?;
    Ok(out)
}

fn to_json(value: Cbor) -> Result<Value, CborError> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(value) => value.into(),
        Cbor::Text(text) => text.into(),
        // Kubernetes writes strings as byte strings, because Go's need not be UTF-8.
        Cbor::Bytes(bytes) => String::from_utf8(bytes).map_err(|_| CborError::Utf8)?.into(),
        Cbor::Integer(number) => integer(number)?.into(),
        Cbor::Float(number) => Number::from_f64(number).ok_or(CborError::Number)?.into(),
        Cbor::Array(items) => items.into_iter().map(to_json).collect::<Result<Vec<_>, _>>()?.into(),
        Cbor::Map(entries) => {
            let mut object = Map::with_capacity(entries.len().min(1024));
            for (key, value) in entries {
                let Value::String(key) = to_json(key)? else { return Err(CborError::Key) };
                if object.contains_key(&key) {
                    return Err(CborError::Duplicate(key));
                }
                object.insert(key, to_json(value)?);
            }
            object.into()
        }
        Cbor::Tag(SELF_DESCRIBED | DATE_TIME, value) => to_json(*value)?,
        Cbor::Tag(SHOWN_AS_BASE64, value) => match *value {
            Cbor::Bytes(bytes) => STANDARD.encode(bytes).into(),
            _ => return Err(CborError::Tag(SHOWN_AS_BASE64)),
        },
        Cbor::Tag(tag, _) => return Err(CborError::Tag(tag)),
        _ => return Err(CborError::NoForm),
    })
}

fn integer(number: Integer) -> Result<Number, CborError> {
    let number = i128::from(number);
    i64::try_from(number)
        .map(Number::from)
        .or_else(|_| u64::try_from(number).map(Number::from))
        .map_err(|_| CborError::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_come_back_whole() {
        let document = json!({ "a": [1, -1, 1.5, true, null, "text", u64::MAX], "b": { "c": {} } });
        let bytes = encode(&document).expect("it is encoded");
        assert_eq!(&bytes[..3], SELF_DESCRIBED_BYTES);
        assert_eq!(decode(&bytes).expect("it is decoded"), document);
    }

    #[test]
    fn byte_strings_are_text_and_tagged_ones_are_base64() {
        // {h'6b': 22(h'00ff'), h'74': 0("2026-01-01T00:00:00Z")}
        let mut bytes = vec![0xa2, 0x41, b'k', 0xd6, 0x42, 0x00, 0xff, 0x41, b't', 0xc0, 0x74];
        bytes.extend_from_slice(b"2026-01-01T00:00:00Z");
        assert_eq!(decode(&bytes).expect("it is decoded"), json!({ "k": "AP8=", "t": "2026-01-01T00:00:00Z" }));
    }

    #[test]
    fn malformed_documents_are_refused() {
        let deep = [[0x81].repeat(100_000), vec![0xf6]].concat();
        let refused: [(&[u8], &str); 9] = [
            (&[], "Io"),
            (&[0x01, 0x02], "1 bytes follow"),
            (&[0xa2, 0x61, b'a', 1, 0x61, b'a', 2], "duplicate map key \"a\""),
            (&[0xa1, 0x01, 0x01], "key of a map"),
            (&[0x41, 0xff], "not UTF-8"),
            (&[0xc1, 0x01], "tag 1"),
            (&[0xf9, 0x7e, 0x00], "out of range"),
            // An array that claims 2^40 items.
            (&[0x9b, 0, 0, 1, 0, 0, 0, 0, 0], "Io"),
            (&deep, "Recursion"),
        ];
        for (bytes, message) in refused {
            let error = decode(bytes).expect_err(message).to_string();
            assert!(error.contains(message), "{error} for {message}");
        }
    }
}
