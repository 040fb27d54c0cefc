//! Join tokens, stored in the replicated state. Only a hash of the secret is stored, and a lease deletes expired
//! tokens.

use jiff::Timestamp;
use quorate_api::{Reason, Status};
use quorate_mvcc::{Command, CommandError, LeaseId, Outcome};
use quorate_pki::{JoinToken, Pin};
use quorate_store::Store;
use serde::{Deserialize, Serialize};

use super::rows::{self, Row};
use super::{authorities, now_seconds};
use crate::api::Api;
use crate::error;

pub(super) const PREFIX: &str = "/quorate/tokens/";

const DEFAULT_TTL_SECONDS: u64 = 24 * 3600;
/// Maximum lifetime of a token, in seconds. It is far below the maximum of a lease.
const MAX_TTL_SECONDS: u64 = 10 * 365 * 24 * 3600;
const MAX_USES: u32 = 10_000;

/// The role that a token grants to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Worker,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Master => "master",
            Role::Worker => "worker",
        })
    }
}

/// A request for a new token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    pub role: Role,
    /// Number of machines that the token lets in; 1 by default.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Lifetime in seconds; zero for a token that does not expire, one day by default.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    #[serde(default)]
    pub description: String,
    /// The master that the new one replaces.
    #[serde(default)]
    pub replaces: Option<String>,
}

/// A new token with its secret, which is shown only once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedToken {
    #[serde(flatten)]
    pub shown: ShownToken,
    pub token: String,
    /// The command to run on a new machine.
    pub command: String,
}

/// A token without its secret.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownToken {
    pub id: String,
    pub role: Role,
    pub uses: u32,
    /// Names of the machines that have joined with the token.
    pub used_by: Vec<String>,
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The time of expiry in RFC 3339; `None` when the token does not expire.
    pub expires: Option<String>,
}

/// A token as it is stored, under the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredToken {
    id: String,
    pub role: Role,
    uses: u32,
    used_by: Vec<Use>,
    description: String,
    pub replaces: Option<String>,
    expires_seconds: Option<i64>,
}

/// A machine that has used the token, identified by its key. It may repeat the request until it has its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    key: String,
    name: String,
}

impl StoredToken {
    fn shown(&self) -> ShownToken {
        let expires = self.expires_seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        ShownToken {
            id: self.id.clone(),
            role: self.role,
            uses: self.uses,
            used_by: self.used_by.iter().map(|used| used.name.clone()).collect(),
            description: self.description.clone(),
            replaces: self.replaces.clone(),
            expires: expires.map(|expires| expires.to_string()),
        }
    }

    /// Returns the token after a machine has used it, unchanged if that machine had used it before.
    ///
    /// # Errors
    /// `Forbidden` for another role, or when the token is used up.
    pub fn used(&self, role: Role, key: &Pin, name: &str, now_seconds: i64) -> Result<StoredToken, Status> {
        if self.expires_seconds.is_some_and(|expires| expires <= now_seconds) {
            return Err(unknown());
        }
        if self.role != role {
            let own = self.role;
            let message =
                format!("token {} lets a {own} in, not a {role}; use `qctl token create --role {role}`", self.id);
            return Err(Status::new(Reason::Forbidden, message));
        }
        if let Some(used) = self.used_by.iter().find(|used| used.key == key.as_str()) {
            if used.name == name {
                return Ok(self.clone());
            }
            let message = format!(
                "token {} has let this machine in as {}; join under that name, or use another token and another data \
                 directory",
                self.id, used.name
            );
            return Err(Status::new(Reason::Forbidden, message));
        }
        if self.used_by.len() >= usize::try_from(self.uses).unwrap_or(usize::MAX) {
            // Whoever has found an old token must not learn the names of the machines.
            let message = format!(
                "token {} is used up; `qctl token list` shows by whom, and `qctl token create --role {role}` creates \
                 another",
                self.id
            );
            return Err(Status::new(Reason::Forbidden, message));
        }
        let mut token = self.clone();
        token.used_by.push(Use { key: key.to_string(), name: name.to_owned() });
        Ok(token)
    }
}

fn unknown() -> Status {
    Status::new(
        Reason::Unauthorized,
        "the token is not known: it has expired or was revoked; `qctl token create` creates another",
    )
}

/// Finds the token that a machine presents as `ID.SECRET`.
///
/// # Errors
/// `Unauthorized` when no such token exists.
pub(super) async fn find(store: &Store, presented: &str) -> Result<(Row<StoredToken>, StoredToken), Status> {
    let (id, secret) = presented.split_once('.').ok_or_else(unknown)?;
    let row = rows::read::<StoredToken>(store, key_of(secret)).await?;
    let token = row.value.clone().filter(|token| token.id == id).ok_or_else(unknown)?;
    Ok((row, token))
}

fn key_of(secret: &str) -> String {
    format!("{PREFIX}{}", JoinToken::hash_of(secret))
}

/// Creates a token.
///
/// # Errors
/// `BadRequest` for an invalid request, `NotFound` when this master cannot sign certificates.
pub async fn create_token(api: &Api, request: TokenRequest) -> Result<CreatedToken, Status> {
    let authorities = authorities(api)?;
    let uses = request.uses.unwrap_or(1);
    let ttl_seconds = request.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    let wrong = |message: &str| Err(Status::bad_request(message));
    match request.role {
        Role::Master if uses != 1 => {
            return wrong("a token for a master lets one machine in; create one for each master");
        }
        Role::Master if ttl_seconds == 0 => {
            return wrong("a token for a master gives access to the authorities' keys, so it must expire");
        }
        Role::Worker if request.replaces.is_some() => return wrong("only a master can replace another master"),
        _ if uses == 0 || uses > MAX_USES => return wrong("a token must let in between 1 and 10000 machines"),
        _ if ttl_seconds > MAX_TTL_SECONDS => {
            return wrong("a token lives for at most ten years; 0 means that it does not expire");
        }
        _ => {}
    }
    let store = api.store();
    let members = store.quorum_status().await.map_err(|e| error::from_store(&e))?.members;
    if let Some(old) = &request.replaces
        && members.iter().all(|status| status.member.name != *old)
    {
        return Err(Status::new(Reason::NotFound, format!("there is no master {old} to replace")));
    }
    let token = JoinToken::new(authorities.cluster.pin().clone());
    let ttl = i64::try_from(ttl_seconds).unwrap_or(i64::MAX);
    let stored = StoredToken {
        id: token.id.clone(),
        role: request.role,
        uses,
        used_by: Vec::new(),
        description: request.description,
        replaces: request.replaces,
        expires_seconds: (ttl > 0).then(|| now_seconds() + ttl),
    };
    let row = Row::new(key_of(&token.secret));
    let put = match ttl_seconds {
        0 => row.put(&stored)?,
        seconds => row.put_leased(&stored, grant(store, seconds).await?)?,
    };
    if !rows::commit(store, vec![row.unchanged()], vec![put]).await? {
        return Err(Status::internal("a token with this secret already exists"));
    }
    let urls: Vec<String> = members.into_iter().map(|status| status.member.api).collect();
    let command = match request.role {
        Role::Master => {
            let hosts: Vec<_> = urls.iter().map(|url| url.trim_start_matches("https://")).collect();
            format!("quorate server --join {token}@{}", hosts.join(","))
        }
        Role::Worker => format!("quorate agent --server {} --token {token}", urls.join(",")),
    };
    Ok(CreatedToken { shown: stored.shown(), token: token.to_string(), command })
}

async fn grant(store: &Store, ttl_seconds: u64) -> Result<LeaseId, Status> {
    loop {
        let id = LeaseId((rand::random::<i64>() & i64::MAX).max(1));
        let grant = Command::LeaseGrant { id, ttl_seconds };
        match store.propose(grant).await.map_err(|e| error::from_store(&e))?.outcome {
            Ok(Outcome::LeaseGrant { id, .. }) => return Ok(id),
            Ok(other) => return Err(Status::internal(format!("unexpected response to a lease grant: {other:?}"))),
            Err(CommandError::LeaseExists(_)) => {}
            Err(refused) => return Err(Status::internal(refused)),
        }
    }
}

/// Ends the lease of a token that is gone, which might go on for years.
async fn end(store: &Store, lease: LeaseId) -> Result<(), Status> {
    if lease == LeaseId(0) {
        return Ok(());
    }
    let revoke = Command::LeaseRevoke { id: lease, generation: None };
    match store.propose(revoke).await.map_err(|e| error::from_store(&e))?.outcome {
        // It has expired meanwhile.
        Ok(_) | Err(CommandError::LeaseNotFound(_)) => Ok(()),
        Err(refused) => Err(Status::internal(refused)),
    }
}

/// Lists all tokens, without their secrets.
pub(super) async fn list(api: &Api) -> Result<Vec<ShownToken>, Status> {
    let tokens = rows::read_all::<StoredToken>(api.store(), PREFIX).await?;
    let now = now_seconds();
    let is_valid = |token: &StoredToken| token.expires_seconds.is_none_or(|expires| expires > now);
    let mut shown: Vec<_> =
        tokens.into_iter().filter_map(|row| row.value).filter(is_valid).map(|token| token.shown()).collect();
    shown.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(shown)
}

/// Revokes a token. Machines that have joined with it stay.
pub(super) async fn revoke(api: &Api, id: &str) -> Result<ShownToken, Status> {
    loop {
        let tokens = rows::read_all::<StoredToken>(api.store(), PREFIX).await?;
        let found = tokens.into_iter().find(|row| row.value.as_ref().is_some_and(|token| token.id == id));
        let Some((row, token)) = found.and_then(|row| row.value.clone().map(|token| (row, token))) else {
            return Err(Status::new(Reason::NotFound, format!("there is no token {id}; see `qctl token list`")));
        };
        if rows::commit(api.store(), vec![row.unchanged()], vec![row.delete()]).await? {
            end(api.store(), row.lease).await?;
            return Ok(token.shown());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: Role, uses: u32) -> StoredToken {
        StoredToken {
            id: "0a0b0c0d".to_owned(),
            role,
            uses,
            used_by: Vec::new(),
            description: String::new(),
            replaces: None,
            expires_seconds: Some(1000),
        }
    }

    #[test]
    fn a_token_counts_machines_and_not_their_attempts() {
        let keys = [1, 2, 3].map(|key: u8| Pin::of_key(&[key]));
        let once = token(Role::Worker, 2).used(Role::Worker, &keys[0], "w1", 0).expect("the first");
        let again = once.used(Role::Worker, &keys[0], "w1", 0).expect("its answer was lost");
        assert_eq!(once, again);
        let twice = again.used(Role::Worker, &keys[1], "w2", 0).expect("the second");
        let refused = twice.used(Role::Worker, &keys[2], "w3", 0).expect_err("the third");
        assert!(refused.code == 403 && refused.message.contains("is used up"), "{refused:?}");
        assert!(["w1", "w2"].iter().all(|name| !refused.message.contains(name)), "{refused:?}");
        twice.used(Role::Worker, &keys[1], "w2", 0).expect("the second again");
        let refused = again.used(Role::Worker, &keys[0], "w9", 0).expect_err("one machine has one name");
        assert!(refused.code == 403 && refused.message.contains("let this machine in as w1"), "{refused:?}");
        assert_eq!(twice.shown().used_by, ["w1", "w2"]);
    }

    #[test]
    fn a_token_is_for_one_role_and_ends() {
        let key = Pin::of_key(b"1");
        let refused = token(Role::Worker, 1).used(Role::Master, &key, "m", 0).expect_err("a worker's");
        assert!(refused.code == 403 && refused.message.contains("lets a worker in"), "{refused:?}");
        let refused = token(Role::Master, 1).used(Role::Master, &key, "m", 1000).expect_err("expired");
        assert_eq!(refused.code, 401);
    }
}
