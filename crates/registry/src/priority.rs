//! The priority classes that every cluster has.

/// A built-in class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemClass {
    pub name: &'static str,
    pub value: i64,
    pub description: &'static str,
}

/// The prefix of names that only built-in classes may have.
pub const SYSTEM_PREFIX: &str = "system-";

/// The built-in classes. They cannot be deleted.
pub const SYSTEM_CLASSES: [SystemClass; 2] = [
    SystemClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
    SystemClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another node if \
                      necessary.",
    },
];
