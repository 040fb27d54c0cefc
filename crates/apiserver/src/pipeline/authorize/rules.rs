//! The rules behind the decisions, as far as they can be listed: the answer to a `SelfSubjectRulesReview`.

use serde_json::{Value, json};

use super::Attributes;
use crate::user::{AUTHENTICATED, MASTERS, UserInfo};

/// The reviews that every authenticated user may create, by group: they tell a user only about himself (upstream's role
/// `system:basic-user`).
const BASIC: [(&str, &[&str]); 2] = [
    ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
    ("authentication.k8s.io", &["selfsubjectreviews"]),
];
/// The paths that every authenticated user may use, by verb.
const PATHS: [(&str, &[&str]); 2] = [
    (
        "get",
        &[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/openapi/*",
            "/quorum",
            "/quorum/authority",
            "/readyz",
            "/readyz/*",
            "/version",
        ],
    ),
    ("post", &["/quorum/join", "/quorum/renew"]),
];

pub(super) fn is_basic(user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let is_listed =
        |(group, resources): &(&str, &[&str])| *group == attributes.group && resources.contains(&attributes.resource);
    attributes.verb == "create"
        && attributes.subresource.is_empty()
        && user.is_in(AUTHENTICATED)
        && BASIC.iter().any(is_listed)
}

/// Returns a `SubjectRulesReviewStatus`. The rules of a node depend on its pods, so its list is incomplete.
pub(crate) fn rules(user: &UserInfo) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.is_in(MASTERS) {
        resources.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
        paths.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    }
    if user.is_in(AUTHENTICATED) {
        let basic = BASIC.iter();
        resources.extend(
            basic.map(|(group, names)| json!({ "verbs": ["create"], "apiGroups": [group], "resources": names })),
        );
        paths.extend(PATHS.iter().map(|(verb, urls)| json!({ "verbs": [verb], "nonResourceURLs": urls })));
    }
    let is_incomplete = !user.is_in(MASTERS) && user.node().is_some();
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": is_incomplete });
    if is_incomplete {
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    status
}
