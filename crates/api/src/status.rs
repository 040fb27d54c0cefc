//! The Kubernetes `Status` object, the one transport-neutral error, which the edge turns into HTTP.
//!
//! Codes and reasons follow `k8s.io/apimachinery/pkg/apis/meta/v1.StatusReason`.

use serde::{Deserialize, Serialize};

use crate::field::FieldError;
use crate::gvk::GroupVersionResource;

/// Maximum number of field errors that a `Status` lists.
const MAX_ERRORS: usize = 1000;

/// The machine-readable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// Returns the HTTP status code of the reason.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::Unknown | Reason::InternalError | Reason::ServerTimeout => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// One cause of an `Invalid` or other detailed failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// The subject of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (errors) or the kind (deletions).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// A failed request. Its JSON form (with `kind` and `apiVersion`) is [`Status::to_json`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub reason: Reason,
    /// The HTTP status code; [`Reason::code`] unless a caller sets another.
    pub code: u16,
    pub message: String,
    /// Boxed, because every fallible function carries a `Status`.
    pub details: Option<Box<StatusDetails>>,
    /// `metadata.continue`: a token with which a list can continue although its own token has expired.
    pub continue_token: Option<Box<str>>,
}

impl Status {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Status { reason, code: reason.code(), message: message.into(), details: None, continue_token: None }
    }

    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Adds a token with which a failed list can continue.
    #[must_use]
    pub fn with_continue(mut self, token: &str) -> Self {
        self.continue_token = Some(token.into());
        self
    }

    #[must_use]
    pub fn not_found(resource: &GroupVersionResource, name: &str) -> Self {
        Status::new(Reason::NotFound, format!("{} \"{name}\" not found", resource.group_resource()))
            .with_details(details(resource, name))
    }

    #[must_use]
    pub fn already_exists(resource: &GroupVersionResource, name: &str) -> Self {
        Status::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", resource.group_resource()))
            .with_details(details(resource, name))
    }

    #[must_use]
    pub fn conflict(resource: &GroupVersionResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.group_resource());
        Status::new(Reason::Conflict, message).with_details(details(resource, name))
    }

    #[must_use]
    pub fn forbidden(resource: &GroupVersionResource, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() {
            resource.group_resource()
        } else {
            format!("{} \"{name}\"", resource.group_resource())
        };
        Status::new(Reason::Forbidden, format!("{subject} is forbidden: {why}")).with_details(details(resource, name))
    }

    /// Returns `422 Invalid`. As in Kubernetes, `group` and `kind` name the object's type, not its resource.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let shown = &errors[..errors.len().min(MAX_ERRORS)];
        let list = match errors {
            [one] => one.to_string(),
            _ => {
                let mut list: Vec<String> = shown.iter().map(ToString::to_string).collect();
                if errors.len() > MAX_ERRORS {
                    list.push(format!("and {} more errors", errors.len() - MAX_ERRORS));
                }
                format!("[{}]", list.join(", "))
            }
        };
        let causes = shown
            .iter()
            .map(|e| Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.path.to_string() })
            .collect();
        Status::new(Reason::Invalid, format!("{qualified} \"{name}\" is invalid: {list}")).with_details(StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..StatusDetails::default()
        })
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::new(Reason::BadRequest, message)
    }

    #[must_use]
    pub fn unauthorized() -> Self {
        Status::new(Reason::Unauthorized, "Unauthorized")
    }

    #[must_use]
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Status::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// Returns `503` with a delay after which to retry, for a server without a leader or not yet ready.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Status::new(Reason::ServiceUnavailable, message)
            .with_details(StatusDetails { retry_after_seconds: 1, ..StatusDetails::default() })
    }

    /// Returns the status for a `resourceVersion` or continue token that is older than the kept history.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Status::new(Reason::Expired, message)
    }

    /// Renders the `Status` object for the wire.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if self.reason != Reason::Unknown {
            object["reason"] = serde_json::json!(self.reason);
        }
        if let Some(token) = &self.continue_token {
            object["metadata"]["continue"] = serde_json::json!(token);
        }
        if let Some(details) = &self.details {
            object["details"] = serde_json::json!(details);
        }
        object
    }
}

fn details(resource: &GroupVersionResource, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        ..StatusDetails::default()
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::FieldPath;

    #[test]
    fn an_invalid_object_lists_a_bounded_number_of_errors() {
        let error = |index| FieldError::required(FieldPath::new("items").index(index), "");
        let few: Vec<_> = (0..2).map(error).collect();
        let expected = "Kind \"a\" is invalid: [items[0]: Required value, items[1]: Required value]";
        assert_eq!(Status::invalid("", "Kind", "a", &few).message, expected);
        let many: Vec<_> = (0..MAX_ERRORS + 7).map(error).collect();
        let status = Status::invalid("", "Kind", "a", &many);
        assert!(status.message.ends_with("items[999]: Required value, and 7 more errors]"), "{}", status.message);
        assert_eq!(status.details.map(|details| details.causes.len()), Some(MAX_ERRORS));
    }
}
