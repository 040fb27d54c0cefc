//! `create` of a virtual kind: answers a question about users or permissions. The answers come from the authenticate and
//! authorize stages themselves, so they agree with what a request would get.

use jiff::Timestamp;
use quorate_api::Status;
use quorate_api::selector::{FieldRequirement, FieldSelector, LabelSelector};
use quorate_registry::Review;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::metadata;
use crate::pipeline::Operation;
use crate::pipeline::authorize::{Attributes, Verdict, judge, may_use_path, rules};
use crate::pipeline::create::check_namespace;
use crate::user::UserInfo;

/// Answers a review and returns it with its status.
///
/// # Errors
/// `Invalid` or `BadRequest` for a question that cannot be answered.
pub(crate) async fn answer(operation: &Operation, review: Review, mut object: Value) -> Result<Value, Status> {
    let Operation { api, user, target, .. } = operation;
    let descriptor = &target.resource.descriptor;
    check_namespace(target.namespace.as_deref(), &object)?;
    if let Some(namespace) = &target.namespace {
        metadata::of_mut(&mut object).insert("namespace".to_owned(), namespace.as_str().into());
    }
    let errors = descriptor.strategy.validate(&object);
    if !errors.is_empty() {
        return Err(operation.target.resource.invalid("", &errors));
    }
    let status = match review {
        Review::SelfSubject => {
            object["metadata"] = json!({ "creationTimestamp": metadata::time(Timestamp::now()) });
            json!({ "userInfo": { "username": user.name, "groups": user.groups } })
        }
        Review::Token => {
            if metadata::field(&object["spec"], "token").is_empty() {
                return Err(Status::bad_request("token is required for TokenReview in authentication"));
            }
            // Users authenticate by certificate alone, so no token is known.
            json!({ "authenticated": false, "user": {}, "error": "invalid bearer token" })
        }
        Review::SelfSubjectAccess => access(api, user, &object["spec"]).await,
        Review::SubjectAccess => {
            let spec = &object["spec"];
            let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let user = UserInfo {
                name: metadata::field(spec, "user").to_owned(),
                groups: groups.map(str::to_owned).collect(),
            };
            access(api, &user, spec).await
        }
        Review::SelfSubjectRules => {
            if metadata::field(&object["spec"], "namespace").is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            // As in Kubernetes, the answer does not repeat the question.
            object["metadata"] = Map::new().into();
            object["spec"] = Map::new().into();
            rules(user)
        }
    };
    object["status"] = status;
    Ok(object)
}

/// Returns the `SubjectAccessReviewStatus` of a user's request. Nothing here is denied for good: a refusal is the lack of
/// a permission.
async fn access(api: &Api, user: &UserInfo, spec: &Value) -> Value {
    let asked = &spec["resourceAttributes"];
    if asked.is_null() {
        let asked = &spec["nonResourceAttributes"];
        return json!({ "allowed": may_use_path(api, user, metadata::field(asked, "verb"), metadata::field(asked, "path")) });
    }
    let mut problems = Vec::new();
    let fields = field_selector(&asked["fieldSelector"], &mut problems);
    let labels = metadata::field(&asked["labelSelector"], "rawSelector");
    if LabelSelector::parse(labels).is_err() {
        problems.push("spec.resourceAttributes.labelSelector ignored due to parse error".to_owned());
    }
    let set = |field: &str| Some(metadata::field(asked, field)).filter(|text| !text.is_empty());
    let attributes = Attributes {
        verb: metadata::field(asked, "verb"),
        group: metadata::field(asked, "group"),
        resource: metadata::field(asked, "resource"),
        subresource: metadata::field(asked, "subresource"),
        namespace: set("namespace"),
        name: set("name"),
        fields: &fields,
    };
    let mut status = match judge(api, user, &attributes).await {
        Ok(Verdict::Allowed | Verdict::Related(_)) => json!({ "allowed": true }),
        Ok(Verdict::Refused(None)) => json!({ "allowed": false }),
        Ok(Verdict::Refused(Some(reason))) => json!({ "allowed": false, "reason": reason }),
        Err(error) => {
            problems.insert(0, error.message);
            json!({ "allowed": false })
        }
    };
    if !problems.is_empty() {
        status["evaluationError"] = problems.join("; ").into();
    }
    status
}

/// Returns the string form of a review's field selector. What cannot be understood is left out, which asks for more, and
/// so never gives a permission that the whole selector would not have.
fn field_selector(asked: &Value, problems: &mut Vec<String>) -> String {
    const FIELD: &str = "spec.resourceAttributes.fieldSelector";
    let raw = metadata::field(asked, "rawSelector");
    if !raw.is_empty() {
        return match FieldSelector::parse(raw) {
            Ok(selector) => selector.to_string(),
            Err(_) => {
                problems.push(format!("{FIELD} ignored due to parse error"));
                String::new()
            }
        };
    }
    let asked: &[Value] = asked["requirements"].as_array().map_or(&[], Vec::as_slice);
    let known: Vec<_> = asked.iter().filter_map(requirement).collect();
    if known.len() < asked.len() {
        let how = if known.is_empty() { "ignored" } else { "partially ignored" };
        problems.push(format!("{FIELD} {how} due to parse error"));
    }
    FieldSelector::from(known).to_string()
}

/// Returns a requirement of one value; field selectors have no others.
fn requirement(asked: &Value) -> Option<FieldRequirement> {
    let negated = match metadata::field(asked, "operator") {
        "In" => false,
        "NotIn" => true,
        _ => return None,
    };
    let [value] = asked["values"].as_array()?.as_slice() else { return None };
    Some(FieldRequirement {
        field: metadata::field(asked, "key").to_owned(),
        negated,
        value: value.as_str()?.to_owned(),
    })
}
