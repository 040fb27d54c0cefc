//! Server-side apply and the tracking of other writes. Input: the selector of a kind, a byte whose lowest bit forces the
//! apply, and three lines: the live object, its `managedFields`, and the configuration.

use quorate_schema::apply::{self, Applied, Apply, Change, Managers, OneVersion, Writer};
use quorate_schema::{builtin, decode};
use serde_json::Value;

use crate::kinds::{self, InputKind};

const STATUS: &[&[&str]] = &[&["f:status"]];

pub(crate) fn check(data: &[u8]) {
    let Some((kind, rest)) = kinds::split(data) else { return };
    let Some((flags, rest)) = rest.split_first() else { return };
    let mut lines = rest.splitn(3, |byte| *byte == b'\n');
    let (Some(live), Some(managed_fields), Some(configuration)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let object = |text: &[u8]| decode::json(builtin(), kind.ty, text).ok().map(|decoded| decoded.object);
    let (Some(live), Some(configuration)) = (object(live), object(configuration)) else { return };
    let managed_fields = serde_json::from_slice::<Value>(managed_fields).unwrap_or(Value::Null);
    let managers = Managers::stored(Some(&managed_fields));
    entries_keep_their_form(&managers);
    updates_are_tracked(&kind, &live, &configuration, &managers);
    applies_are_idempotent(&kind, &live, &configuration, &managers, flags & 1 == 1);
}

fn writer<'a>(kind: &InputKind, time: &'a str) -> Writer<'a> {
    Writer { manager: "fuzzer", api_version: kind.api_version, subresource: "", time }
}

fn entries_keep_their_form(managers: &Managers) {
    let written = managers.clone().into_json();
    let read = Managers::stored(written.as_ref());
    assert_eq!(read.into_json(), written, "managedFields change when they are read");
}

fn updates_are_tracked(kind: &InputKind, live: &Value, new: &Value, managers: &Managers) {
    let Some(change) = Change::between(builtin(), kind.ty, live, new) else { return };
    let written = managers.clone().into_json().unwrap_or(Value::Null);
    let writer = writer(kind, "2026-01-01T00:00:00Z");
    let mut updated = managers.clone();
    apply::update(change.clone(), |_| None, &mut updated, &writer);
    let stored = apply::update_stored(change, |_| None, &written, &writer);
    assert_eq!(stored, updated.into_json(), "the short way of an update differs from the long one");
}

fn applies_are_idempotent(kind: &InputKind, live: &Value, configuration: &Value, managers: &Managers, force: bool) {
    let request = Apply {
        configuration,
        writer: writer(kind, "2026-01-01T00:00:00Z"),
        ignored: STATUS,
        force,
        transferred: None,
    };
    let Ok(applied) = apply::apply(builtin(), kind.ty, &OneVersion, live, managers, &request) else { return };
    let Applied::Object(object, managers) = applied else {
        assert!(!force, "a forced apply has conflicts");
        return;
    };
    entries_keep_their_form(&managers);
    let own = managers.entries.iter().find(|entry| entry.manager == "fuzzer");
    let mut missing = apply::extract(builtin(), kind.ty, configuration).expect("it was applied");
    missing.remove_tree(&["f:status"]);
    if let Some(own) = own {
        missing.subtract(&own.fields);
    }
    let unmanaged = |path: &String| {
        [".apiVersion", ".kind", ".metadata"].contains(&path.as_str())
            || (path.starts_with(".metadata.") && !path[10..].contains(['.', '[']))
    };
    let unowned: Vec<String> = missing.paths(100).into_iter().filter(|path| !unmanaged(path)).collect();
    assert_eq!(unowned, Vec::<String>::new(), "the applier does not own what it has applied");

    let again = apply::apply(builtin(), kind.ty, &OneVersion, &object, &managers, &request).expect("it applies again");
    match again {
        Applied::Object(again, same) => {
            assert_eq!(again, object, "applying twice changes the object");
            assert_eq!(same.into_json(), managers.into_json(), "applying twice changes the managers");
        }
        Applied::Conflicts(conflicts) => panic!("an applier conflicts with itself: {conflicts:?}"),
    }
}
