//! ServiceAccount: an identity. It holds no tokens.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{age_cell, column, name_cell, name_column};
use crate::value::items;

pub struct ServiceAccount;

impl Kind for ServiceAccount {
    type Object = core::ServiceAccount;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("Secrets"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name_cell(object), Value::from(items(&object["secrets"]).len()), age_cell(object, now)]
    }
}
