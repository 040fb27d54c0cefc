//! Bodies in JSON. Input: the selector of a kind, then the document.

use quorate_schema::builtin;
use quorate_schema::decode::{self, JsonError};
use serde_json::Value;

use crate::{kinds, object};

pub(crate) fn check(data: &[u8]) {
    let Some((kind, body)) = kinds::split(data) else { return };
    let parsed = serde_json::from_slice::<Value>(body);
    match decode::json(builtin(), kind.ty, body) {
        Ok(decoded) => {
            assert!(decoded.strict.len() <= 100);
            // A field that the type does not have may hold what a value cannot, such as 1e999.
            if let Ok(value) = parsed {
                let from_value = decode::value(builtin(), kind.ty, value).expect("both decoders accept it");
                assert_eq!(from_value.object, decoded.object, "the two decoders differ");
            }
            object::check(&kind, &decoded.object);
        }
        Err(JsonError::Type(error)) => assert!(error.to_string().len() < 16 << 10, "a long refusal"),
        Err(JsonError::Syntax(_)) => assert!(parsed.is_err(), "it is JSON"),
    }
}
