//! Invitations to join, stored in the replicated state.
//!
//! A token admits one directory: the first that presents it. Only a hash of its secret is stored, and a lease removes
//! invitations that are never used.

use bytes::Bytes;
use quorate_mvcc::{
    Command, CommandError, Compare, CompareOperator, CompareTarget, KeyRange, LeaseId, Op, Outcome, PutRequest,
    RangeRequest, Reply, Txn,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::changes::INVITATION_TTL_SECONDS;
use crate::error::StoreError;
use crate::membership::{Member, MemberId};
use crate::raft::node::Node;
use crate::raft::requests::{proposals, reads};
use crate::raft::state::StateStore;

/// Prefix of the invitations' keys. Clients of the etcd API may not write below it.
pub const PREFIX: &str = "/quorate/invitations/";

/// An invitation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// The member that may join. The joining member supplies an empty name and empty addresses.
    pub member: Member,
    /// Incarnation of the directory that has presented the token.
    #[serde(default)]
    pub taken_by: Option<u64>,
}

fn key_of(secret: &str) -> String {
    let hash = Sha256::digest(secret.as_bytes());
    hash.iter().fold(PREFIX.to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

fn encode(invitation: &Invitation) -> Result<Bytes, StoreError> {
    let encoded = serde_json::to_vec(invitation).map_err(|error| StoreError::Fatal(error.to_string()))?;
    Ok(encoded.into())
}

fn decode(value: &[u8]) -> Result<Invitation, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Fatal(format!("an invitation is unreadable: {error}")))
}

/// Stores an invitation until its token ends.
pub async fn store(node: &Node, secret: &str, invitation: &Invitation) -> Result<(), StoreError> {
    let lease = loop {
        let id = LeaseId(i64::try_from(crate::raft::lifecycle::identity::random_number()).unwrap_or(1));
        let grant = Command::LeaseGrant { id, ttl_seconds: INVITATION_TTL_SECONDS };
        match proposals::propose(node, &grant).await? {
            Reply { outcome: Ok(_), .. } => break id,
            Reply { outcome: Err(CommandError::LeaseExists(_)), .. } => {}
            Reply { outcome: Err(refused), .. } => return Err(refused.into()),
        }
    };
    let put = PutRequest { key: key_of(secret).into(), value: encode(invitation)?, lease, ..PutRequest::default() };
    let txn = Txn { success: vec![Op::Put(put)], ..Txn::default() };
    proposals::propose(node, &Command::Txn(txn)).await?.outcome?;
    Ok(())
}

/// Returns the invitations of members that have not joined yet, with their keys, by a linearizable read.
pub async fn list(node: &Node) -> Result<Vec<(Bytes, Invitation)>, StoreError> {
    list_in(&*reads::barrier(node).await?)
}

/// Returns the same as [`list`], as far as this member has applied.
pub fn list_local(node: &Node) -> Result<Vec<(Bytes, Invitation)>, StoreError> {
    list_in(&node.instance()?.state)
}

fn list_in(state: &StateStore) -> Result<Vec<(Bytes, Invitation)>, StoreError> {
    let found = read(state, KeyRange::prefix(PREFIX))?;
    let readable = found.into_iter().filter_map(|kv| match decode(&kv.value) {
        Ok(invitation) => Some((kv.key, invitation)),
        Err(error) => {
            tracing::warn!(%error, key = %String::from_utf8_lossy(&kv.key), "skipped an unreadable invitation");
            None
        }
    });
    Ok(readable.collect())
}

fn read(state: &StateStore, range: KeyRange) -> Result<Vec<quorate_mvcc::KeyValue>, StoreError> {
    Ok(state.current().range(&RangeRequest::new(range))?.kvs)
}

/// Withdraws an invitation by revoking its lease.
pub async fn withdraw(node: &Node, key: Bytes) -> Result<(), StoreError> {
    let found = read(&node.instance()?.state, KeyRange::key(key))?;
    for found in found {
        let revoke = Command::LeaseRevoke { id: found.lease, generation: None };
        match proposals::propose(node, &revoke).await?.outcome {
            // The lease has expired meanwhile.
            Ok(_) | Err(CommandError::LeaseNotFound(_)) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(())
}

/// Withdraws the invitation of `member`, if there is one.
pub async fn withdraw_of(node: &Node, member: MemberId) -> Result<(), StoreError> {
    for (key, _) in list_local(node)?.into_iter().filter(|(_, invitation)| invitation.member.id == member) {
        withdraw(node, key).await?;
    }
    Ok(())
}

/// Presents a token for the directory with this incarnation. Returns the invited member, or the reason to refuse it.
pub async fn present(node: &Node, secret: &str, incarnation: u64) -> Result<Result<Member, String>, StoreError> {
    let state = reads::barrier(node).await?;
    let key = key_of(secret);
    let Some(found) = read(&state, KeyRange::key(key.clone()))?.into_iter().next() else {
        return Ok(Err("the token is not known: it was used or withdrawn, or it has expired".to_owned()));
    };
    drop(state);
    let mut invitation = decode(&found.value)?;
    match invitation.taken_by {
        Some(by) if by == incarnation => return Ok(Ok(invitation.member)),
        Some(_) => return Ok(Err("the token was used already, with another directory".to_owned())),
        None => {}
    }
    invitation.taken_by = Some(incarnation);
    let put = PutRequest { key: found.key.clone(), value: encode(&invitation)?, ..PutRequest::default() };
    let unchanged = Compare {
        range: KeyRange::key(found.key),
        target: CompareTarget::ModRevision(found.mod_revision),
        operator: CompareOperator::Equal,
    };
    let put = PutRequest { ignore_lease: true, ..put };
    let txn = Txn { compare: vec![unchanged], success: vec![Op::Put(put)], failure: Vec::new() };
    match proposals::propose(node, &Command::Txn(txn)).await?.outcome? {
        Outcome::Txn(response) if response.succeeded => Ok(Ok(invitation.member)),
        _ => Ok(Err("the token was just used".to_owned())),
    }
}
