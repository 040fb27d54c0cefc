//! Managed fields: the name of a request's field manager, and the tracking of changes that are not applies.
//!
//! An object's `metadata.managedFields` says who has set which of its fields. Every creation and every update through the
//! pipeline keeps it up to date, except deletions and bindings, as in Kubernetes.

use http::HeaderMap;
use http::header::USER_AGENT;
use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, Status};
use quorate_registry::Subresource;
use quorate_schema::TypeId;
use quorate_schema::apply::{self, Change, Managers, Versions, Writer};
use serde_json::{Map, Value};

use crate::metadata;
use crate::pipeline::Operation;
use crate::pipeline::modify::Current;
use crate::query::Query;
use crate::user::UserInfo;

/// The field of the metadata.
const FIELD: &str = "managedFields";
/// Maximum size of a manager's name, in bytes, as in Kubernetes.
const MAX_NAME_BYTES: usize = 128;
/// Maximum size of a subresource's name, in bytes, as in Kubernetes.
const MAX_SUBRESOURCE_BYTES: usize = 256;

/// The field manager of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldManager {
    pub name: String,
    /// The managers of the object that an apply creates.
    pub applied: Option<Managers>,
}

impl FieldManager {
    /// Returns the manager that the request names, or the program's name from the user agent.
    ///
    /// # Errors
    /// `Invalid` for a name that is too long or not printable, and for an apply without a name.
    pub fn parse(query: &Query, headers: &HeaderMap, options: &str, is_apply: bool) -> Result<Self, Status> {
        let given = query.get("fieldManager");
        let path = FieldPath::new("fieldManager");
        let mut errors = Vec::new();
        match given {
            None if is_apply => errors.push(FieldError::required(path, "is required for apply patch")),
            None => {}
            Some(name) => errors.extend(check_name(path, name)),
        }
        if !is_apply && options == "PatchOptions" && query.get("force").is_some() {
            errors.push(FieldError::forbidden(FieldPath::new("force"), "may not be specified for non-apply patch"));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", options, "", &errors));
        }
        let agent = || headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let name = given.map_or_else(|| program(agent()), str::to_owned);
        Ok(FieldManager { name, applied: None })
    }

    /// Returns the manager of code in this process: its user without the prefix of system users.
    pub fn of_user(user: &UserInfo) -> Self {
        let name = user.name.strip_prefix("system:").unwrap_or(&user.name);
        FieldManager { name: name.to_owned(), applied: None }
    }
}

/// Returns the program that a user agent names: what stands before the first slash.
fn program(agent: &str) -> String {
    let mut name: String = agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Returns the object with the stored `managedFields`, unless it has others or is to have none.
pub(crate) fn joined(mut object: Value, stored: Option<Value>) -> Value {
    match of(&object) {
        None => set(&mut object, stored),
        Some(Value::Null) => set(&mut object, None),
        Some(_) => {}
    }
    object
}

/// Returns the error of a manager's name.
fn check_name(path: FieldPath, name: &str) -> Option<FieldError> {
    if name.len() > MAX_NAME_BYTES {
        return Some(FieldError::too_long(path, MAX_NAME_BYTES));
    }
    let is_printable = !name.chars().any(char::is_control);
    (!is_printable).then(|| FieldError::invalid(path, name, "should only contain printable characters"))
}

/// Checks the names in the entries that a client has sent. Entries that cannot be read otherwise are not used at all.
fn check_given(operation: &Operation, given: &Value, name: &str) -> Result<(), Status> {
    let mut errors = Vec::new();
    let list = FieldPath::new("metadata").child(FIELD);
    for (index, entry) in given.as_array().into_iter().flatten().enumerate() {
        let path = list.clone().index(index);
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        errors.extend(check_name(path.child("manager"), text("manager")));
        if text("subresource").len() > MAX_SUBRESOURCE_BYTES {
            errors.push(FieldError::too_long(path.child("subresource"), MAX_SUBRESOURCE_BYTES));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(operation.target.resource.invalid(name, &errors))
}

/// Returns the writer of a request; `time` is the time of the write.
pub(crate) fn writer<'a>(operation: &'a Operation, time: &'a str) -> Writer<'a> {
    Writer {
        manager: &operation.manager.name,
        api_version: &operation.target.version.api_version,
        subresource: operation.target.subresource.map_or("", Subresource::as_str),
        time,
    }
}

pub(crate) fn now() -> String {
    metadata::time(Timestamp::now())
}

/// Returns the `managedFields` of an object.
pub(crate) fn of(object: &Value) -> Option<&Value> {
    metadata::of(object).get(FIELD)
}

/// Takes the `managedFields` out of an object.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut)?.remove(FIELD)
}

/// Sets the `managedFields` of an object.
pub(crate) fn set(object: &mut Value, managed_fields: Option<Value>) {
    match managed_fields {
        Some(managed_fields) => {
            metadata::of_mut(object).insert(FIELD.to_owned(), managed_fields);
        }
        None => {
            take(object);
        }
    }
}

/// Takes the `managedFields` that the client has sent out of a new object, which is decoded and has its defaults, and
/// returns those that it is to be stored with. What the server sets later belongs to nobody.
///
/// # Errors
/// `Invalid` for names in the client's entries that are too long or not printable.
pub(crate) fn of_creation(operation: &Operation, object: &mut Value) -> Result<Option<Value>, Status> {
    let given = take(object);
    if let Some(managers) = &operation.manager.applied {
        return Ok(managers.clone().into_json());
    }
    if let Some(given) = &given {
        check_given(operation, given, metadata::text(object, "name"))?;
    }
    let mut managers = Managers::given_or_stored(given.as_ref(), None);
    // A creation does not set the status of a kind that has an endpoint for it.
    let has_status = operation.target.resource.descriptor.has(Subresource::Status);
    let status = object.as_object_mut().filter(|_| has_status).and_then(|object| object.remove("status"));
    let nothing = Value::Object(Map::new());
    if let Some(change) = between(operation, &nothing, object) {
        let elsewhere = |version: &str| between_in(operation, version, &nothing, object);
        apply::update(change, elsewhere, &mut managers, &writer(operation, &now()));
    }
    if let (Some(status), Some(object)) = (status, object.as_object_mut()) {
        object.insert("status".to_owned(), status);
    }
    Ok(managers.into_json())
}

/// Sets the managers of `new`, the successor of `current`, unless they stay as they are. `given` is what the client has
/// sent as `managedFields`.
///
/// # Errors
/// `Invalid` for names in the client's entries that are too long or not printable.
pub(crate) fn track_change(
    operation: &Operation,
    current: &Current,
    new: &mut Value,
    given: Option<&Value>,
) -> Result<(), Status> {
    let stored = current.managed_fields.as_ref();
    // A subresource does not change the managers but by its changes.
    let given = given.filter(|given| operation.target.subresource.is_none() && Some(*given) != stored);
    let change = between(operation, &current.object, new);
    let elsewhere = |version: &str| between_in(operation, version, &current.object, new);
    let Some(given) = given else {
        // An object without managers was reset, or is older than they are; the first apply begins to track it again.
        if let (Some(change), Some(stored)) = (change, stored) {
            let managed_fields = apply::update_stored(change, elsewhere, stored, &writer(operation, &now()));
            put(new, stored, managed_fields);
        }
        return Ok(());
    };
    check_given(operation, given, metadata::text(new, "name"))?;
    let mut managers = Managers::given_or_stored(Some(given), stored);
    if let Some(change) = change.filter(|_| !managers.entries.is_empty()) {
        apply::update(change, elsewhere, &mut managers, &writer(operation, &now()));
    }
    put(new, stored.unwrap_or(&Value::Null), managers.into_json());
    Ok(())
}

/// Sets the `managedFields` of an object's successor, unless they are the stored ones.
pub(crate) fn put(new: &mut Value, stored: &Value, managed_fields: Option<Value>) {
    let managed_fields = managed_fields.unwrap_or(Value::Null);
    if managed_fields != *stored {
        set(new, Some(managed_fields));
    }
}

/// Returns the change between two stored objects in the version of the request; `None` if no field differs that a manager
/// can have.
fn between(operation: &Operation, old: &Value, new: &Value) -> Option<Change> {
    let version = &operation.target.version;
    let schema = version.descriptor.schema;
    Change::between(schema.model(), schema.ty(), &version.shown(old), &version.shown(new))
}

/// Returns the change between two stored objects in a version; `None` if the version is not served.
fn between_in(operation: &Operation, api_version: &str, old: &Value, new: &Value) -> Option<Change> {
    let schema = operation.target.resource.descriptor.schema;
    let (ty, old) = in_version(operation, api_version, old)?;
    let (_, new) = in_version(operation, api_version, new)?;
    Some(Change::between(schema.model(), ty, &old, &new).unwrap_or_default())
}

/// Returns a stored object in a version; `None` if the version is not served.
fn in_version(operation: &Operation, api_version: &str, object: &Value) -> Option<(TypeId, Value)> {
    let catalog = operation.api.catalog();
    let served = catalog.version_of(&operation.target.resource, api_version)?;
    Some((served.descriptor.schema.ty(), served.shown(object).into_owned()))
}

/// The served versions of the target's kind, for objects in the version of the request.
pub(crate) struct ServedVersions<'a>(pub &'a Operation);

impl Versions for ServedVersions<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(TypeId, Value)> {
        let mut object = object.clone();
        self.0.target.version.store(&mut object);
        in_version(self.0, api_version, &object)
    }

    fn restore(&self, mut object: Value, api_version: &str) -> Value {
        if let Some(served) = self.0.api.catalog().version_of(&self.0.target.resource, api_version) {
            served.store(&mut object);
            self.0.target.version.show(&mut object);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_named_by_the_request_or_its_program() {
        let mut headers = HeaderMap::new();
        let parse = |query: &str, headers: &HeaderMap, is_apply| {
            let query = Query::parse(query).expect("a query");
            FieldManager::parse(&query, headers, "PatchOptions", is_apply)
                .map(|manager| manager.name)
                .map_err(|status| status.message)
        };
        assert_eq!(parse("", &headers, false).as_deref(), Ok("unknown"));
        headers.insert(USER_AGENT, "kubectl/v1.33.0 (linux/amd64)".parse().expect("a header"));
        assert_eq!(parse("", &headers, false).as_deref(), Ok("kubectl"));
        assert_eq!(parse("fieldManager=me", &headers, true).as_deref(), Ok("me"));
        let refusals = [
            ("", true, "fieldManager: Required value: is required for apply patch"),
            ("force=true", false, "force: Forbidden: may not be specified for non-apply patch"),
            ("fieldManager=a%0Ab", false, "should only contain printable characters"),
        ];
        for (query, is_apply, message) in refusals {
            let refused = parse(query, &headers, is_apply).expect_err("refused");
            assert!(refused.starts_with("PatchOptions.meta.k8s.io \"\" is invalid: "), "{refused}");
            assert!(refused.contains(message), "{refused}");
        }
        let long = format!("fieldManager={}", "x".repeat(129));
        assert!(parse(&long, &headers, true).is_err());
    }
}
