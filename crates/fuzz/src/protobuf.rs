//! Bodies in Protocol Buffers. Input: the document, which names its kind.

use quorate_schema::{builtin, decode, protobuf};

use crate::kinds::{InputKind, KINDS};
use crate::object;

pub(crate) fn check(data: &[u8]) {
    let Ok(document) = protobuf::decode(builtin(), data) else { return };
    let text = |field: &str| document[field].as_str().unwrap_or_default();
    // Kinds of every group version are found under versions that are not in the table.
    let known = KINDS.iter().find(|(api_version, kind)| *api_version == text("apiVersion") && *kind == text("kind"));
    let Some(&(api_version, kind)) = known else { return };
    let ty = builtin().kind(api_version, kind).expect("a built-in kind");
    if let Ok(decoded) = decode::value(builtin(), ty, document) {
        object::check(&InputKind { api_version, kind, ty }, &decoded.object);
    }
}
