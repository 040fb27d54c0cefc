//! JSON patches, merge patches and strategic merge patches. Input: a letter for the format, the selector of a kind, an
//! object on one line, and the patch.

use quorate_api::GroupVersion;
use quorate_api::gvk::GroupVersionKind;
use quorate_api::patch::{self, duplicates};
use quorate_schema::{builtin, decode};
use serde_json::Value;

use crate::kinds;

/// The limit of what the copies in a JSON patch may add.
const MAX_COPIED_BYTES: usize = 3 << 20;

pub(crate) fn check(data: &[u8]) {
    let Some((format, rest)) = data.split_first() else { return };
    let Some((kind, rest)) = kinds::split(rest) else { return };
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(object) = decode::json(builtin(), kind.ty, &rest[..end]) else { return };
    let text = &rest[end + 1..];
    assert!(duplicates::find(text).len() <= 100);
    let Ok(patch) = serde_json::from_slice::<Value>(text) else { return };
    let object = object.object;
    let patched = match format % 3 {
        0 => json(&object, &patch),
        1 => merge(&object, &patch),
        _ => strategic(kind.api_version, kind.kind, &object, &patch),
    };
    let Some(patched) = patched else { return };
    let stored = patched.to_string();
    let read: Value = serde_json::from_str(&stored).expect("a patched object can be read again");
    assert_eq!(read, patched);
    if let Ok(decoded) = decode::value(builtin(), kind.ty, patched) {
        let again = decode::value(builtin(), kind.ty, decoded.object.clone()).expect("it is decoded again");
        assert_eq!(again.object, decoded.object);
    }
}

fn json(object: &Value, patch: &Value) -> Option<Value> {
    let mut patched = object.clone();
    let applied = patch::json::apply(&mut patched, patch);
    let most = object.to_string().len() + patch.to_string().len() + MAX_COPIED_BYTES;
    assert!(patched.to_string().len() <= most, "the object grows beyond what the patch may copy");
    applied.is_ok().then_some(patched)
}

fn merge(object: &Value, patch: &Value) -> Option<Value> {
    if !patch.is_object() {
        return None;
    }
    let mut patched = object.clone();
    patch::merge::apply(&mut patched, patch);
    let once = patched.clone();
    patch::merge::apply(&mut patched, patch);
    assert_eq!(patched, once, "a merge patch is not idempotent");
    Some(patched)
}

fn strategic(api_version: &str, kind: &str, object: &Value, patch: &Value) -> Option<Value> {
    let GroupVersion { group, version } = GroupVersion::parse(api_version);
    let kind = GroupVersionKind { group, version, kind: kind.to_owned().into() };
    let mut patched = object.clone();
    patch::strategic::apply(&kind, &mut patched, patch).ok()?;
    if !has_directive(patch) {
        let once = patched.clone();
        patch::strategic::apply(&kind, &mut patched, patch).expect("a patch applies to its own result");
        assert_eq!(patched, once, "a patch without directives is not idempotent");
    }
    Some(patched)
}

fn has_directive(patch: &Value) -> bool {
    match patch {
        Value::Object(fields) => fields.iter().any(|(name, value)| name.starts_with('$') || has_directive(value)),
        Value::Array(items) => items.iter().any(has_directive),
        _ => false,
    }
}
