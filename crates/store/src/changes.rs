//! Changes of the quorum, as an operator asks for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::membership::{Member, MemberId};

/// How long a token is good for.
pub const INVITATION_TTL_SECONDS: u64 = 24 * 3600;

/// A change of the quorum. Members are named by their name, or by their id in decimal or (as etcd prints it) in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Invite(Invite),
    /// The member goes as soon as the number of voters can be odd without it; who never joined goes at once.
    Remove {
        member: MemberName,
    },
    /// The member votes as soon as it has caught up and the number of voters can be odd with it. Takes a removal back
    /// that is still to come.
    Promote {
        member: MemberName,
    },
    Update {
        member: MemberName,
        addresses: Addresses,
    },
    /// Hands leadership to this voter, or to the one that has most of the log.
    Transfer {
        to: Option<MemberName>,
    },
}

/// Which member is meant.
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

/// New addresses of a member; `None` leaves what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    #[serde(default)]
    pub peer: Option<String>,
    #[serde(default)]
    pub api: Option<String>,
    #[serde(default)]
    pub etcd: Option<String>,
}

/// Asks a new member in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// May be empty, and is then what the joining member calls itself.
    #[serde(default)]
    pub name: String,
    /// `host:port` of its peer transport.
    pub peer: String,
    /// `https://host:port` of its REST API; may be empty, as the name.
    #[serde(default)]
    pub api: String,
    #[serde(default)]
    pub etcd: String,
    /// It gets no vote until it is promoted.
    #[serde(default)]
    pub learner: bool,
    /// The member whose place it takes.
    #[serde(default)]
    pub replaces: Option<String>,
    /// The token's secret is the new member's id, which is all that etcd's answer can carry.
    #[serde(default)]
    pub token_is_id: bool,
}

/// What became of a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Whom it was about, as it is now.
    pub member: Member,
    /// For the new member, once.
    #[serde(default)]
    pub token: Option<String>,
    /// What the change waits for, if it does.
    #[serde(default)]
    pub waits: Option<String>,
}

impl Changed {
    /// Done, as far as it is known, and with nothing to hand over.
    #[must_use]
    pub fn of(member: Member) -> Self {
        Changed { member, token: None, waits: None }
    }
}

/// Why the quorum was not changed.
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
    /// It is no learner.
    #[error("{0} has a vote already")]
    NotLearner(String),
    /// It has not caught up.
    #[error("{0} has not caught up with the leader yet")]
    NotReady(String),
    /// Too few members answer for this change.
    #[error("{0}")]
    Unhealthy(String),
    /// It may or may not have happened.
    #[error("{0}")]
    Unavailable(String),
}

/// Lets one new member in: `CLUSTER.SECRET@PEER,PEER`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub cluster: u32,
    pub secret: String,
    /// `host:port` of members to ask.
    pub peers: Vec<String>,
}

/// Logs are read by many.
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
    fn a_token_survives_being_written_down() {
        let token =
            Token { cluster: 0xab, secret: "s3".to_owned(), peers: vec!["a:1".to_owned(), "[::1]:2".to_owned()] };
        assert_eq!(token.to_string(), "000000ab.s3@a:1,[::1]:2");
        assert_eq!(token.to_string().parse(), Ok(token));
        for wrong in ["", "ab", "ab.s", "ab.s@", "x.s@h:1", "ab.@h:1", "ab.s@h"] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }
}
