//! Bodies in CBOR. Input: the selector of a kind, then the document.

use quorate_schema::{builtin, cbor, decode};

use crate::{kinds, object};

pub(crate) fn check(data: &[u8]) {
    let Some((kind, body)) = kinds::split(data) else { return };
    let Ok(value) = cbor::decode(body) else { return };
    let bytes = cbor::encode(&value).expect("a decoded value is encoded");
    assert_eq!(cbor::decode(&bytes).expect("it is decoded again"), value);
    if value.is_object()
        && let Ok(decoded) = decode::value(builtin(), kind.ty, value)
    {
        object::check(&kind, &decoded.object);
    }
}
