//! The user that makes a request.

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub groups: Vec<String>,
}

/// The group whose users may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of all users that have proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of worker agents; their user name is `system:node:<name>`.
pub const NODES: &str = "system:nodes";
/// The prefix of a node's user name.
const NODE_PREFIX: &str = "system:node:";

impl UserInfo {
    /// Returns a user of the group that may do everything.
    #[must_use]
    pub fn master(name: &str) -> Self {
        UserInfo { name: name.to_owned(), groups: vec![MASTERS.to_owned()] }
    }

    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Returns the node whose agent this user is.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        if self.is_in(NODES) { self.name.strip_prefix(NODE_PREFIX) } else { None }
    }
}
