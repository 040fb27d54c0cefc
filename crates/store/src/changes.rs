//! Membership changes that an operator can request.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::membership::{Member, MemberId};

/// Lifetime of a join token, in seconds.
pub const INVITATION_TTL_SECONDS: u64 = 24 * 3600;

/// A change of the quorum. Members are named by their name, or by their id in decimal or (as etcd prints it) in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Invite(Invite),
    /// Removes a member as soon as the number of voters can be odd without it. An invited member that never joined is
    /// removed immediately.
    Remove {
        member: MemberName,
    },
    /// Gives a member a vote as soon as it has caught up and the number of voters can be odd with it. Cancels a pending
    /// removal.
    Promote {
        member: MemberName,
    },
    Update {
        member: MemberName,
        addresses: Addresses,
    },
    /// Transfers leadership to this voter, or to the one with the most complete log.
    Transfer {
        to: Option<MemberName>,
    },
}

/// Reference to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberName {
    Id(MemberId),
    /// A name, or an id as text.
    Text(String),
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemberName::Id(id) => write!(f, "{id}"),
            MemberName::Text(text) => f.write_str(text),
        }
    }
}

/// New addresses of a member. `None` keeps the current address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    #[serde(default)]
    pub peer: Option<String>,
    #[serde(default)]
    pub api: Option<String>,
    #[serde(default)]
    pub etcd: Option<String>,
}

/// Invitation of a new member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// Name of the new member. When it is empty, the joining member chooses its name.
    #[serde(default)]
    pub name: String,
    /// `host:port` of its peer transport.
    pub peer: String,
    /// `https://host:port` of its REST API. May be empty, like the name.
    #[serde(default)]
    pub api: String,
    #[serde(default)]
    pub etcd: String,
    /// Whether the member gets no vote until it is promoted.
    #[serde(default)]
    pub learner: bool,
    /// The member that it replaces.
    #[serde(default)]
    pub replaces: Option<String>,
    /// Whether the token's secret is the new member's id, which is all that etcd's response can carry.
    #[serde(default)]
    pub token_is_id: bool,
}

/// Result of a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The changed member, as it is now.
    pub member: Member,
    /// Join token for a new member. It is returned only once.
    #[serde(default)]
    pub token: Option<String>,
    /// The reason why the change is still pending, if it is.
    #[serde(default)]
    pub waits: Option<String>,
}

impl Changed {
    /// A change without a token that waits for nothing.
    #[must_use]
    pub fn of(member: Member) -> Self {
        Changed { member, token: None, waits: None }
    }
}

/// Reason why a membership change failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ChangeError {
    #[error("there is no member {0}")]
    NotFound(String),
    #[error("{0}")]
    Exists(String),
    #[error("{0}")]
    PeerInUse(String),
    #[error("{0}")]
    Invalid(String),
    /// The member is not a learner.
    #[error("{0} has a vote already")]
    NotLearner(String),
    /// The member has not caught up.
    #[error("{0} has not caught up with the leader yet")]
    NotReady(String),
    /// Too few members respond for this change.
    #[error("{0}")]
    Unhealthy(String),
    /// The change may or may not have happened.
    #[error("{0}")]
    Unavailable(String),
}

/// Token that lets one new member join: `CLUSTER.SECRET@PEER,PEER`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub cluster: u32,
    pub secret: String,
    /// `host:port` of members to join through.
    pub peers: Vec<String>,
}

/// Leaves out the secret, so that it does not appear in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}@{}", self.cluster, self.secret, self.peers.join(","))
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "this is no token; `qctl quorum add` prints one as CLUSTER.SECRET@HOST:PORT,…".to_owned();
        let (key, peers) = text.trim().split_once('@').ok_or_else(wrong)?;
        let (cluster, secret) = key.split_once('.').ok_or_else(wrong)?;
        let cluster = u32::from_str_radix(cluster, 16).map_err(|_| wrong())?;
        let peers: Vec<_> = peers.split(',').map(str::to_owned).collect();
        if secret.is_empty() || peers.iter().any(|peer| !peer.contains(':')) {
            return Err(wrong());
        }
        Ok(Token { cluster, secret: secret.to_owned(), peers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formatted_token_parses_to_the_same_token() {
        let token =
            Token { cluster: 0xab, secret: "s3".to_owned(), peers: vec!["a:1".to_owned(), "[::1]:2".to_owned()] };
        assert_eq!(token.to_string(), "000000ab.s3@a:1,[::1]:2");
        assert_eq!(token.to_string().parse(), Ok(token));
        for wrong in ["", "ab", "ab.s", "ab.s@", "x.s@h:1", "ab.@h:1", "ab.s@h"] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }
}
