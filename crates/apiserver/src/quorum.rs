//! Changes of the quorum over REST: `/quorum/members` and `/quorum/transfer`, for administrators.

use http::Method;
use quorate_api::{Reason, Status};
use quorate_store::{Addresses, Change, ChangeError, Invite, MemberName, Store};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error;
use crate::response::Response;

/// An operation on the quorum or on one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Invite,
    Remove(String),
    Promote(String),
    Update(String),
    Transfer,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Transfer {
    to: Option<String>,
}

/// Finds the operation for a method and a path below `/quorum`.
///
/// # Errors
/// `MethodNotAllowed`; `NotFound` for an unknown path.
pub(crate) fn operation(method: &Method, path: &[&str]) -> Result<Operation, Status> {
    let (is_allowed, operation) = match path {
        ["members"] => (*method == Method::POST, Operation::Invite),
        ["members", name] if *method == Method::PATCH => (true, Operation::Update((*name).to_owned())),
        ["members", name] => (*method == Method::DELETE, Operation::Remove((*name).to_owned())),
        ["members", name, "promote"] => (*method == Method::POST, Operation::Promote((*name).to_owned())),
        ["transfer"] => (*method == Method::POST, Operation::Transfer),
        _ => return Err(error::no_such_path()),
    };
    if is_allowed { Ok(operation) } else { Err(error::method_not_allowed()) }
}

/// Runs an operation.
///
/// # Errors
/// Errors of the store, or `BadRequest` for a body that does not parse.
pub(crate) async fn change(store: &Store, operation: Operation, body: &[u8]) -> Result<Response, Status> {
    let change = match operation {
        Operation::Invite => Change::Invite(parse::<Invite>(body)?),
        Operation::Remove(name) => Change::Remove { member: MemberName::Text(name) },
        Operation::Promote(name) => Change::Promote { member: MemberName::Text(name) },
        Operation::Update(name) => {
            Change::Update { member: MemberName::Text(name), addresses: parse::<Addresses>(body)? }
        }
        Operation::Transfer if body.is_empty() => Change::Transfer { to: None },
        Operation::Transfer => Change::Transfer { to: parse::<Transfer>(body)?.to.map(MemberName::Text) },
    };
    let is_new = matches!(change, Change::Invite(_));
    let changed = store.change(change).await.map_err(|error| refusal(&error))?;
    Ok(Response::json(&json!(changed))?.with_code(if is_new { 201 } else { 200 }))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(body).map_err(|error| Status::bad_request(format!("the body cannot be parsed: {error}")))
}

pub(crate) fn refusal(error: &ChangeError) -> Status {
    let reason = match error {
        ChangeError::NotFound(_) => Reason::NotFound,
        ChangeError::Exists(_) | ChangeError::PeerInUse(_) => Reason::AlreadyExists,
        ChangeError::Invalid(_) => Reason::BadRequest,
        ChangeError::NotLearner(_) | ChangeError::NotReady(_) => Reason::Conflict,
        ChangeError::Unhealthy(_) | ChangeError::Unavailable(_) => Reason::ServiceUnavailable,
    };
    Status::new(reason, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_map_to_operations() {
        let m4 = || "m4".to_owned();
        let cases = [
            (Method::POST, &["members"][..], Ok(Operation::Invite)),
            (Method::DELETE, &["members", "m4"], Ok(Operation::Remove(m4()))),
            (Method::PATCH, &["members", "m4"], Ok(Operation::Update(m4()))),
            (Method::POST, &["members", "m4", "promote"], Ok(Operation::Promote(m4()))),
            (Method::POST, &["transfer"], Ok(Operation::Transfer)),
            (Method::GET, &["transfer"], Err(405)),
            (Method::PUT, &["members", "m4"], Err(405)),
            (Method::POST, &["members", "m4", "demote"], Err(404)),
        ];
        for (method, path, expected) in cases {
            assert_eq!(operation(&method, path).map_err(|status| status.code), expected, "{method} {path:?}");
        }
    }
}
