//! JSON patch (RFC 6902): a list of operations, with Kubernetes' error texts.

use json_patch::jsonptr::Pointer;
use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// Maximum number of operations in one patch, as in Kubernetes.
pub const MAX_OPERATIONS: usize = 10_000;
/// Maximum size of everything that the `copy` operations of one patch copy: that of a request's body, as in Kubernetes. A
/// copy of the whole document doubles it, so thirty of them would fill any memory.
const MAX_COPIED_BYTES: usize = 3 << 20;
/// Maximum depth of what an operation writes. Parsers stop at 128 levels, and deeper values overflow the stack.
const MAX_DEPTH: usize = 120;
/// Maximum number of values that the operations of one patch visit or shift in a list. Ten thousand moves of a large value,
/// or insertions in front of a long list, would otherwise take minutes.
const MAX_VISITED: usize = 50_000_000;

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
    let mut spent = Spent::default();
    for entry in list {
        let operation: PatchOperation = serde::Deserialize::deserialize(entry).map_err(|e| malformed(entry, &e))?;
        // A missing value equals null here, as in the library that Kubernetes uses.
        if let PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && test.path.resolve(target).is_err()
        {
            continue;
        }
        spent.check(target, &operation)?;
        json_patch::patch_unsafe(target, std::slice::from_ref(&operation)).map_err(|e| refused(&operation, &e.kind))?;
    }
    Ok(())
}

/// The costs of the operations of one patch.
#[derive(Default)]
struct Spent {
    /// Size of the values that were copied, in bytes of JSON.
    copied_bytes: usize,
    /// Values that were visited or shifted.
    visited: usize,
}

impl Spent {
    /// Checks what an operation is about to do.
    fn check(&mut self, target: &Value, operation: &PatchOperation) -> Result<(), PatchError> {
        let (written, left) = match operation {
            PatchOperation::Add(add) => (Some(&add.value), None),
            PatchOperation::Replace(replace) => (Some(&replace.value), None),
            PatchOperation::Move(r#move) => (r#move.from.resolve(target).ok(), Some(&r#move.from)),
            PatchOperation::Copy(copy) => (copy.from.resolve(target).ok(), None),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, None),
        };
        if !matches!(operation, PatchOperation::Replace(_) | PatchOperation::Test(_)) {
            // An element at the end of a list shifts no other.
            let shifted = |path: &Pointer| {
                let length = path.parent()?.resolve(target).ok()?.as_array()?.len();
                let index = path.last()?.decoded().parse::<usize>().unwrap_or(length);
                Some(length.saturating_sub(index))
            };
            self.visited += [Some(operation.path()), left.map(|from| &**from)]
                .into_iter()
                .flatten()
                .filter_map(shifted)
                .sum::<usize>();
        }
        // A source that does not exist is refused by the operation itself.
        let depth = written.map_or(0, |written| depth(written, &mut self.visited));
        if self.visited > MAX_VISITED {
            return Err(PatchError::Unprocessable("the operations of the patch move too many values".to_owned()));
        }
        if let (PatchOperation::Copy(_), Some(written)) = (operation, written) {
            self.copied_bytes += written.to_string().len();
            if self.copied_bytes > MAX_COPIED_BYTES {
                return Err(PatchError::Unprocessable(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit \
                     {MAX_COPIED_BYTES}",
                    self.copied_bytes
                )));
            }
        }
        if operation.path().tokens().count() + depth > MAX_DEPTH {
            return Err(PatchError::Unprocessable(format!("the patch nests values deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

/// The number of levels of lists and maps in a value. Adds the number of its values to `visited`.
fn depth(value: &Value, visited: &mut usize) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 0)];
    while let Some((value, level)) = open.pop() {
        *visited += 1;
        deepest = deepest.max(level);
        match value {
            Value::Array(list) => open.extend(list.iter().map(|inner| (inner, level + 1))),
            Value::Object(map) => open.extend(map.values().map(|inner| (inner, level + 1))),
            _ => {}
        }
    }
    deepest
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
    fn copies_do_not_grow_without_bound() {
        let mut target = json!({"a": "x".repeat(300)});
        let copies: Vec<Value> =
            (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/copy{i}")})).collect();
        let refused = apply(&mut target, &Value::from(copies)).expect_err("each copy doubles the document");
        assert!(refused.to_string().contains("accumulated size increase of copy"), "{refused}");
        assert!(target.to_string().len() < 2 * MAX_COPIED_BYTES);
    }

    #[test]
    fn values_do_not_nest_without_bound() {
        let mut target = json!({"a": []});
        let mut path = "/a".to_owned();
        let mut operations = Vec::new();
        for _ in 0..200 {
            operations.push(json!({"op": "add", "path": format!("{path}/-"), "value": []}));
            path.push_str("/0");
        }
        let refused = apply(&mut target, &Value::from(operations)).expect_err("it would be 200 levels deep");
        assert!(refused.to_string().contains("deeper than 120 levels"), "{refused}");

        let mut target = json!({"a": {"b": {}}});
        let nest = json!({"op": "copy", "from": "/a", "path": "/a/b/a"});
        apply(&mut target, &json!([nest])).expect("a copy into itself is a copy of what was there");
    }

    #[test]
    fn operations_move_a_bounded_number_of_values() {
        let many = vec![Value::from(0); 100_000];
        let forth = json!({"op": "move", "from": "/a", "path": "/b"});
        let back = json!({"op": "move", "from": "/b", "path": "/a"});
        let insertion = json!({"op": "add", "path": "/a/0", "value": 1});
        let removal = json!({"op": "remove", "path": "/a/0"});
        let to_end = json!({"op": "move", "from": "/a/0", "path": "/a/-"});
        for operations in [vec![forth, back], vec![insertion.clone()], vec![removal], vec![to_end]] {
            let operations: Vec<_> = operations.into_iter().cycle().take(MAX_OPERATIONS).collect();
            let refused = apply(&mut json!({"a": many}), &operations.into()).expect_err("a billion values move");
            assert!(refused.to_string().contains("move too many values"), "{refused}");
        }
        let mut target = json!({"a": []});
        apply(&mut target, &vec![insertion; 5000].into()).expect("a list that a patch may build");
        assert_eq!(target["a"].as_array().map(Vec::len), Some(5000));
        let append = json!({"op": "add", "path": "/a/-", "value": 1});
        apply(&mut target, &vec![append; MAX_OPERATIONS].into()).expect("an element at the end shifts no other");
    }

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
