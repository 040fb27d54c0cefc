//! Ratcheting of validation: an update is not refused for an error that the stored object already has.
//!
//! Rules become stricter over time, and objects that were stored before would otherwise be stuck: not even their
//! finalizers could be removed. Kubernetes ratchets field by field: by hand for built-in kinds (such as
//! `PodValidationOptions`), and for custom resources and declarative rules by comparing the old and the new value. Here
//! one rule serves all kinds. An error is dropped if validating the stored object against itself yields the same error,
//! and if the value at its path has not changed. The first condition keeps an error of one field that a change of
//! another field causes; errors about changes, such as of immutable fields, never meet it.

use std::collections::HashSet;

use quorate_api::{FieldError, FieldErrorKind, FieldPath};
use serde_json::Value;

/// Drops the errors of `new` that are among the `known` errors of `old` and whose value is unchanged.
pub(super) fn drop_unchanged(errors: &mut Vec<FieldError>, new: &Value, known: Vec<FieldError>, old: &Value) {
    let known: HashSet<FieldError> = known.into_iter().collect();
    errors.retain(|error| {
        let is_absent_in_both = error.kind == FieldErrorKind::Required;
        !(known.contains(error) && is_unchanged(&error.path, is_absent_in_both, new, old))
    });
}

/// Compares the values at a path. If it leads nowhere, as for a missing field, the innermost values on the way to it are
/// compared instead. If its absence is the error, it is enough that the path leads through the same elements of lists.
fn is_unchanged(path: &FieldPath, is_about_absence: bool, new: &Value, old: &Value) -> bool {
    let ((new, new_rest), (old, old_rest)) = (path.trace(new), path.trace(old));
    let is_same_absence = || is_about_absence && !new_rest.is_empty() && are_same_elements(&new, &old);
    new_rest == old_rest && (new.last() == old.last() || is_same_absence())
}

/// Returns whether two traces of a path lead through the same elements of lists. Elements are identified by their `name`,
/// the merge key of nearly all lists; others must be equal.
fn are_same_elements(new: &[&Value], old: &[&Value]) -> bool {
    let name = |element: &Value| element.get("name").cloned();
    new.iter()
        .zip(new.iter().skip(1).zip(old.iter().skip(1)))
        .all(|(list, (new, old))| !list.is_array() || new == old || name(new).is_some_and(|own| name(old) == Some(own)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn left(error: &FieldError, new: &Value, known: &[FieldError], old: &Value) -> usize {
        let mut errors = vec![error.clone()];
        drop_unchanged(&mut errors, new, known.to_vec(), old);
        errors.len()
    }

    #[test]
    fn known_errors_of_unchanged_values_are_dropped() {
        let path = || FieldPath::new("spec").child("names").index(0);
        let object = |first: &str, other: i32| json!({"spec": {"names": [first], "other": other}});
        let error = FieldError::invalid(path(), "A", "must be lower case");
        let known = [error.clone()];
        assert_eq!(left(&error, &object("A", 2), &known, &object("A", 1)), 0);
        assert_eq!(left(&error, &object("A", 2), &[], &object("A", 1)), 1, "another field's change causes it");
        let forbidden = FieldError::forbidden(path(), "may not be set");
        let known = [forbidden.clone()];
        assert_eq!(left(&forbidden, &object("B", 1), &known, &object("A", 1)), 1, "the value has changed");
        let moved = json!({"spec": {"names": ["B", "A"], "other": 1}});
        assert_eq!(left(&forbidden, &moved, &known, &object("A", 1)), 1, "the list has changed");
    }

    #[test]
    fn errors_about_missing_fields_are_dropped_only_while_these_are_missing() {
        let missing = FieldPath::new("spec").child("image");
        let required = FieldError::required(missing.clone(), "");
        let (old, new) = (json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}}));
        assert_eq!(left(&required, &new, std::slice::from_ref(&required), &old), 0);
        let other = FieldError::forbidden(missing, "");
        let known = [other.clone()];
        assert_eq!(left(&other, &new, &known, &old), 1, "the path leads nowhere, and what is around it has changed");
        assert_eq!(left(&other, &old, &known, &old), 0);
    }

    #[test]
    fn errors_about_missing_fields_are_not_dropped_for_another_element_of_a_list() {
        let path = FieldPath::new("spec").child("containers").index(0).child("image");
        let required = FieldError::required(path, "");
        let known = [required.clone()];
        let object = |containers: serde_json::Value| json!({"spec": {"containers": containers}});
        let old = object(json!([{"name": "a"}]));
        assert_eq!(left(&required, &object(json!([{"name": "a", "tty": true}])), &known, &old), 0);
        assert_eq!(left(&required, &object(json!([{"name": "a"}, {"name": "b"}])), &known, &old), 0);
        assert_eq!(left(&required, &object(json!([{"name": "b"}, {"name": "a"}])), &known, &old), 1);
        let nameless = object(json!([{"port": 1}]));
        assert_eq!(left(&required, &nameless, &known, &nameless), 0);
        assert_eq!(left(&required, &object(json!([{"port": 2}])), &known, &nameless), 1);
    }
}
