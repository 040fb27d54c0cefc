//! Lease: a holder and the time of its last renewal.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1 as coordination;
use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{age_cell, column, name_cell, name_column};
use crate::value::text;

pub struct Lease;

impl Kind for Lease {
    type Object = coordination::Lease;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("Holder"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name_cell(object), Value::from(text(&object["spec"]["holderIdentity"])), age_cell(object, now)]
    }

    fn validate(object: &coordination::Lease) -> Vec<FieldError> {
        let (mut errors, path) = (Vec::new(), FieldPath::new("spec"));
        let Some(spec) = &object.spec else { return errors };
        if spec.holder_identity.as_deref() == Some("") {
            errors.push(FieldError::invalid(path.child("holderIdentity"), "", "must not be empty"));
        }
        if let Some(seconds) = spec.lease_duration_seconds {
            check::positive(seconds, path.child("leaseDurationSeconds"), &mut errors);
        }
        if let Some(transitions) = spec.lease_transitions {
            check::non_negative(transitions, path.child("leaseTransitions"), &mut errors);
        }
        errors
    }
}
