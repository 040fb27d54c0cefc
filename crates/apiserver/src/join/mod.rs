//! How machines join a cluster: tokens that administrators hand out, and the certificates that a machine gets for one.
//!
//! The routes are below `/quorum`, beside the other routes that are not resources: `authority`, `join` and `renew` for
//! machines, `tokens` for administrators. `authority` and `join` answer anonymous clients, because a joining machine
//! has no certificate yet. Its token lets it check that it talks to the right cluster.

mod hosts;
mod machines;
mod rows;
mod served;
mod tokens;

use std::sync::Arc;

use http::Method;
use quorate_api::Status;
use quorate_pki::Authorities;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::Api;
use crate::error;
use crate::response::{Request, Response};
use crate::user::UserInfo;

pub use served::publish_hosts;
pub use tokens::{Role, TokenRequest, create_token};

/// Prefixes of the rows that this module keeps in the store. The etcd API must not write them.
pub const JOIN_ROWS: [&str; 3] = [tokens::PREFIX, machines::PREFIX, served::PREFIX];

/// Returns the key of the row that holds the key pair with which a worker joined. Its certificates are renewed as long as
/// the row exists.
pub(crate) fn machine_row(name: &str) -> String {
    format!("{}{name}", machines::PREFIX)
}

/// An operation below `/quorum` on joining machines or tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Returns the certificate of the cluster's authority.
    Authority,
    /// Lets a machine join.
    Join,
    /// Renews a worker's certificates.
    Renew,
    ListTokens,
    CreateToken,
    RevokeToken(String),
}

impl Operation {
    pub(crate) fn is_for_administrators(&self) -> bool {
        matches!(self, Operation::ListTokens | Operation::CreateToken | Operation::RevokeToken(_))
    }
}

/// Returns whether anonymous users may request this path.
pub(crate) fn is_open(path: &str) -> bool {
    matches!(path, "/quorum/authority" | "/quorum/join")
}

/// Returns whether anonymous users may send a body to this path.
pub(crate) fn takes_body(path: &str) -> bool {
    path == "/quorum/join"
}

/// Finds the operation for a method and a path below `/quorum`.
///
/// # Errors
/// `MethodNotAllowed`; `NotFound` for an unknown path.
pub(crate) fn operation(method: &Method, path: &[&str]) -> Result<Operation, Status> {
    let (is_allowed, operation) = match path {
        ["authority"] => (*method == Method::GET, Operation::Authority),
        ["join"] => (*method == Method::POST, Operation::Join),
        ["renew"] => (*method == Method::POST, Operation::Renew),
        ["tokens"] if *method == Method::GET => (true, Operation::ListTokens),
        ["tokens"] => (*method == Method::POST, Operation::CreateToken),
        ["tokens", id] => (*method == Method::DELETE, Operation::RevokeToken((*id).to_owned())),
        _ => return Err(error::no_such_path()),
    };
    if is_allowed { Ok(operation) } else { Err(error::method_not_allowed()) }
}

/// Runs an operation.
///
/// # Errors
/// The refusal, or errors of the store.
pub(crate) async fn answer(
    api: &Api,
    user: &UserInfo,
    operation: Operation,
    request: &Request,
) -> Result<Response, Status> {
    match operation {
        Operation::Authority => {
            let authorities = authorities(api)?;
            Ok(Response::text(200, authorities.cluster.certificate_pem().to_owned()))
        }
        Operation::Join => machines::join(api, parse(&request.body)?, request.connection.address).await,
        Operation::Renew => machines::renew(api, user, parse(&request.body)?, request.connection.address).await,
        Operation::ListTokens => Response::json(&json!({ "tokens": tokens::list(api).await? })),
        Operation::CreateToken => {
            let created = create_token(api, parse(&request.body)?).await?;
            Ok(Response::json(&json!(created))?.with_code(201))
        }
        Operation::RevokeToken(id) => Response::json(&json!(tokens::revoke(api, &id).await?)),
    }
}

fn authorities(api: &Api) -> Result<Arc<Authorities>, Status> {
    api.authorities().ok_or_else(|| {
        Status::new(
            quorate_api::Reason::NotFound,
            "this master cannot sign certificates, because its own were made by hand: tokens need a cluster that was \
             created by `quorate server --init`",
        )
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(body).map_err(|error| Status::bad_request(format!("the body cannot be parsed: {error}")))
}

/// Returns the time in seconds since 1970, by this machine's clock.
fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_map_to_operations() {
        let cases = [
            (Method::GET, &["authority"][..], Ok(Operation::Authority)),
            (Method::POST, &["join"], Ok(Operation::Join)),
            (Method::POST, &["renew"], Ok(Operation::Renew)),
            (Method::GET, &["tokens"], Ok(Operation::ListTokens)),
            (Method::POST, &["tokens"], Ok(Operation::CreateToken)),
            (Method::DELETE, &["tokens", "a"], Ok(Operation::RevokeToken("a".to_owned()))),
            (Method::GET, &["join"], Err(405)),
            (Method::GET, &["tokens", "a"], Err(405)),
            (Method::POST, &["join", "x"], Err(404)),
        ];
        for (method, path, expected) in cases {
            assert_eq!(operation(&method, path).map_err(|status| status.code), expected, "{method} {path:?}");
        }
    }
}
