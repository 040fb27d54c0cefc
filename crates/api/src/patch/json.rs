//! JSON patch (RFC 6902): a list of operations, with Kubernetes' error texts.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// Maximum number of operations in one patch, as in Kubernetes.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies the operations in order. After an error, `target` holds the effects of the operations before the failing
/// one.
///
/// # Errors
/// When `patch` is not a list of operations, or an operation does not apply to the target.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let list = patch.as_array().ok_or_else(|| {
        PatchError::Malformed(
            "error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch".to_owned(),
        )
    })?;
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { max: MAX_OPERATIONS, got: list.len() });
    }
    for entry in list {
        let operation: PatchOperation = serde::Deserialize::deserialize(entry).map_err(|e| malformed(entry, &e))?;
        // A missing value equals null here, as in the library that Kubernetes uses.
        if let PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && test.path.resolve(target).is_err()
        {
            continue;
        }
        json_patch::patch_unsafe(target, std::slice::from_ref(&operation)).map_err(|e| refused(&operation, &e.kind))?;
    }
    Ok(())
}

fn malformed(entry: &Value, error: &serde_json::Error) -> PatchError {
    match entry.get("op").and_then(Value::as_str) {
        Some("add" | "remove" | "replace" | "move" | "copy" | "test") => {
            PatchError::Malformed(format!("error decoding patch: {error}"))
        }
        Some(other) => PatchError::Unprocessable(format!("Unexpected kind: {other}")),
        None => PatchError::Unprocessable("Unexpected kind: unknown".to_owned()),
    }
}

fn refused(operation: &PatchOperation, kind: &PatchErrorKind) -> PatchError {
    let path = operation.path();
    let name = match operation {
        PatchOperation::Test(_) => {
            return PatchError::Unprocessable(format!("testing value {path} failed: test failed"));
        }
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
    };
    let text = match (operation, kind) {
        (PatchOperation::Move(_) | PatchOperation::Copy(_), PatchErrorKind::InvalidFromPointer) => {
            format!("{name} operation does not apply: doc is missing from path: {path}: missing value")
        }
        (_, PatchErrorKind::CannotMoveInsideItself) => format!("error in {name} for path: '{path}': {kind}"),
        _ => format!("{name} operation does not apply: doc is missing path: \"{path}\": missing value"),
    };
    PatchError::Unprocessable(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply_in_order() {
        let mut target = json!({"a": {"b": [1, 2]}});
        let patch = json!([
            {"op": "test", "path": "/a/b/0", "value": 1},
            {"op": "test", "path": "/missing", "value": null},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "add", "path": "/a/x~1y", "value": "z"},
            {"op": "replace", "path": "/a/b/0", "value": 0},
            {"op": "copy", "from": "/a/b", "path": "/c"},
            {"op": "move", "from": "/a/x~1y", "path": "/d"},
            {"op": "remove", "path": "/a/b/1"},
        ]);
        apply(&mut target, &patch).expect("patch");
        assert_eq!(target, json!({"a": {"b": [0, 3]}, "c": [0, 2, 3], "d": "z"}));
    }

    #[test]
    fn errors_name_the_failing_operation() {
        for (patch, expected) in [
            (json!([{"op": "test", "path": "/a", "value": 2}]), "testing value /a failed: test failed"),
            (
                json!([{"op": "remove", "path": "/x/y"}]),
                "remove operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (
                json!([{"op": "add", "path": "/x/y", "value": 1}]),
                "add operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (json!([{"op": "frob", "path": "/x"}]), "Unexpected kind: frob"),
        ] {
            let error = apply(&mut json!({"a": 1}), &patch).expect_err("must fail");
            assert_eq!(error, PatchError::Unprocessable(expected.to_owned()));
        }
        for patch in [
            json!({}),
            json!("x"),
            json!([{"op": "add", "path": "/a"}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
        ] {
            assert!(matches!(apply(&mut json!({}), &patch), Err(PatchError::Malformed(_))), "{patch}");
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); MAX_OPERATIONS + 1]);
        assert!(matches!(apply(&mut json!({}), &many), Err(PatchError::TooManyOperations { .. })));
    }
}
