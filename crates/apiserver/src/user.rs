//! Who makes a request.

/// An authenticated user. Its absence is the anonymous user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub groups: Vec<String>,
}

/// May do everything.
pub const MASTERS: &str = "system:masters";
/// Worker agents; the user's name is `system:node:<name>`.
pub const NODES: &str = "system:nodes";
/// What a node's user name begins with.
const NODE_PREFIX: &str = "system:node:";

impl UserInfo {
    /// A user of the group that may do everything.
    #[must_use]
    pub fn master(name: &str) -> Self {
        UserInfo { name: name.to_owned(), groups: vec![MASTERS.to_owned()] }
    }

    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        if self.is_in(NODES) { self.name.strip_prefix(NODE_PREFIX) } else { None }
    }
}
