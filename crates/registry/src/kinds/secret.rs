//! Secret: like a ConfigMap, with a type that may require keys, and `stringData` as another way to write `data`.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use super::config_map::{MAX_DATA_BYTES, immutable_changes};
use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{age_cell, column, name_cell, name_column};
use crate::value::{child, set_default_text, text};

const OPAQUE: &str = "Opaque";
const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub struct Secret;

impl Kind for Secret {
    type Object = core::Secret;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("Type"), column("Data"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object["data"].as_object().map_or(0, serde_json::Map::len);
        vec![name_cell(object), object["type"].clone(), Value::from(count), age_cell(object, now)]
    }

    fn default(object: &mut Value) {
        set_default_text(object, "type", OPAQUE);
        let plain = object.as_object_mut().and_then(|map| map.remove("stringData"));
        if let Some(Value::Object(plain)) = plain {
            let data = child(object, "data");
            for (key, value) in plain {
                let bytes = ByteString(text(&value).as_bytes().to_vec());
                data[key] = serde_json::json!(bytes);
            }
        }
    }

    fn validate(object: &core::Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("data");
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            check::data_key(key, &path, &mut errors);
            size += value.0.len();
        }
        if size > MAX_DATA_BYTES {
            errors.push(FieldError::too_long(path.clone(), MAX_DATA_BYTES));
        }
        let kind = object.type_.as_deref().unwrap_or_default();
        let has = |key: &str| object.data.as_ref().is_some_and(|data| data.contains_key(key));
        for key in required_keys(kind).iter().filter(|key| !has(key)) {
            errors.push(FieldError::required(path.key(key), ""));
        }
        for key in [".dockercfg", ".dockerconfigjson"].iter().filter(|key| required_keys(kind).contains(key)) {
            let content = object.data.as_ref().and_then(|data| data.get(*key));
            if content.is_some_and(|bytes| serde_json::from_slice::<Value>(&bytes.0).is_err()) {
                errors.push(FieldError::invalid(path.key(key), "<secret contents redacted>", "invalid JSON"));
            }
        }
        if kind == "kubernetes.io/basic-auth" && !has("username") && !has("password") {
            errors.push(FieldError::required(path.key("username"), ""));
            errors.push(FieldError::required(path.key("password"), ""));
        }
        let annotations = object.metadata.annotations.as_ref();
        let account = annotations.and_then(|a| a.get(SERVICE_ACCOUNT_NAME)).map_or("", String::as_str);
        if kind == SERVICE_ACCOUNT_TOKEN && account.is_empty() {
            let path = FieldPath::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
            errors.push(FieldError::required(path, ""));
        }
        errors
    }

    fn validate_update(new: &core::Secret, old: &core::Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.type_ != old.type_ {
            errors.push(FieldError::invalid(FieldPath::new("type"), &new.type_, check::IMMUTABLE));
        }
        if old.immutable == Some(true) {
            errors.extend(immutable_changes(&[
                ("immutable", new.immutable != Some(true)),
                ("data", new.data.as_ref().filter(|d| !d.is_empty()) != old.data.as_ref().filter(|d| !d.is_empty())),
            ]));
        }
        errors
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", text(&object["type"]).to_owned())]
    }
}

fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}
