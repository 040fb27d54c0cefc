//! The names that clients generate code from: operation ids, tags, and the sentences that describe operations.

/// Returns a group's name in tags: `rbacAuthorization` of `rbac.authorization.k8s.io`, `core` of the empty group.
pub(super) fn group(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let mut parts = group.trim_end_matches(".k8s.io").split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| name + &capitalized(part))
}

/// Returns a group version's part of operation ids, such as `AppsV1`.
pub(super) fn group_version(name: &str, version: &str) -> String {
    capitalized(&group(name)) + &capitalized(version)
}

pub(super) fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Returns a kind with its article. Plurals have none.
pub(super) fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.to_owned();
    }
    let article = if kind.starts_with(|first: char| "AEIOUaeiou".contains(first)) { "an" } else { "a" };
    format!("{article} {kind}")
}
