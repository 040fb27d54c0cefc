//! Reads the fields of Events: times, count, subject and reporter.

use jiff::Timestamp;
use serde_json::Value;

use crate::output::age_since;

/// Returns the time at which the event was last seen, which is the newest of its times.
#[must_use]
pub fn last_seen(event: &Value) -> Option<&str> {
    let time = |value: &'_ Value| value.as_str().is_some_and(|text| !text.is_empty());
    [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ]
    .into_iter()
    .find(|value| time(value))
    .and_then(Value::as_str)
}

/// Returns the time at which the event was first seen.
#[must_use]
pub fn first_seen(event: &Value) -> Option<&str> {
    [&event["firstTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]]
        .into_iter()
        .find_map(|value| value.as_str().filter(|text| !text.is_empty()))
}

/// Returns the number of times that the event was seen.
#[must_use]
pub fn count(event: &Value) -> i64 {
    event["series"]["count"].as_i64().or_else(|| event["count"].as_i64()).unwrap_or(1).max(1)
}

/// Returns the age column: `5s`, or `5s (x3 over 2m)`.
#[must_use]
pub fn interval(event: &Value, now: Timestamp) -> String {
    let last = age_since(last_seen(event), now);
    match count(event) {
        1 => last,
        count => format!("{last} (x{count} over {})", age_since(first_seen(event), now)),
    }
}

/// Returns the component that reported the event, such as `kubelet`.
#[must_use]
pub fn reporter(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match text(&event["source"]["component"]) {
        component if component.is_empty() => text(&event["reportingComponent"]),
        component => component,
    }
}

/// Returns the object that the event is about: `Pod/web-1`.
#[must_use]
pub fn subject(event: &Value) -> String {
    let about = &event["involvedObject"];
    format!("{}/{}", about["kind"].as_str().unwrap_or_default(), about["name"].as_str().unwrap_or_default())
}
