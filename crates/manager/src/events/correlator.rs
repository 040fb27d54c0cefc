//! Decides which Event to write for a report: a new one, a higher count of an earlier one, or none.
//!
//! Memory is bounded: the least recently used reports are dropped, and a repetition of a dropped report starts a new
//! Event. The correlator is pure: `now` is an argument.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use quorate_controllers::EventType;
use serde_json::{Value, json};

use crate::events::recorder::Record;

/// Maximum number of remembered reports, and of remembered objects.
const CAPACITY: usize = 4096;
/// Maximum burst of Events about one object.
const BURST: f64 = 25.0;
/// Seconds per Event about one object after the burst, as in client-go's spam filter.
const SECONDS_PER_EVENT: f64 = 300.0;
/// Age after which a repetition starts a new Event, because the old one may have expired.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(10);

/// Write to make for a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    Create {
        namespace: String,
        event: Value,
    },
    /// Merge patch of an earlier Event. `event` is the complete Event, in case the earlier one is gone.
    Count {
        namespace: String,
        name: String,
        patch: Value,
        event: Value,
    },
}

/// Identity of a report: the object, the reporting component, and the reported reason, message and type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    object: String,
    component: String,
    reason: String,
    message: String,
    warning: bool,
}

#[derive(Debug)]
struct Known {
    name: String,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    used: u64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Timestamp,
    used: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Correlator {
    known: HashMap<Kind, Known>,
    known_by_use: BTreeMap<u64, Kind>,
    buckets: HashMap<String, Bucket>,
    buckets_by_use: BTreeMap<u64, String>,
    uses: u64,
}

impl Correlator {
    /// Returns the write for a report; `None` when the object has exceeded its rate.
    pub(crate) fn correlate(&mut self, record: &Record, now: Timestamp) -> Option<Write> {
        self.uses += 1;
        let object = identity(&record.regarding);
        if !self.admit(&object, now) {
            return None;
        }
        let kind = Kind {
            object,
            component: record.component.clone(),
            reason: record.reason.clone(),
            message: record.message.clone(),
            warning: record.event_type == EventType::Warning,
        };
        let namespace = record.regarding["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or("default");
        let namespace = namespace.to_owned();
        let earlier = self.known.get_mut(&kind).filter(|known| now.duration_since(known.last) <= MAX_AGE);
        if let Some(known) = earlier {
            known.count += 1;
            known.last = now;
            self.known_by_use.remove(&known.used);
            known.used = self.uses;
            self.known_by_use.insert(self.uses, kind);
            let patch = json!({"count": known.count, "lastTimestamp": seconds(now)});
            let event = event(record, &namespace, known);
            return Some(Write::Count { namespace, name: known.name.clone(), patch, event });
        }
        let about = record.regarding["name"].as_str().unwrap_or("unknown");
        // The name follows client-go. The number of uses distinguishes two Events of the same nanosecond.
        let number = now.as_nanosecond().wrapping_add(i128::from(self.uses));
        let known = Known { name: format!("{about}.{number:x}"), count: 1, first: now, last: now, used: self.uses };
        let write = Write::Create { event: event(record, &namespace, &known), namespace };
        self.remember(kind, known);
        Some(write)
    }

    fn remember(&mut self, kind: Kind, known: Known) {
        self.known_by_use.insert(known.used, kind.clone());
        if let Some(replaced) = self.known.insert(kind, known) {
            self.known_by_use.remove(&replaced.used);
        }
        if self.known.len() > CAPACITY
            && let Some((_, oldest)) = self.known_by_use.pop_first()
        {
            self.known.remove(&oldest);
        }
    }

    /// Takes a token from the object's bucket. Returns whether there was one.
    fn admit(&mut self, object: &str, now: Timestamp) -> bool {
        let bucket =
            self.buckets.entry(object.to_owned()).or_insert_with(|| Bucket { tokens: BURST, filled: now, used: 0 });
        self.buckets_by_use.remove(&bucket.used);
        bucket.used = self.uses;
        self.buckets_by_use.insert(self.uses, object.to_owned());
        let elapsed = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed / SECONDS_PER_EVENT).min(BURST);
        bucket.filled = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        if self.buckets.len() > CAPACITY
            && let Some((_, oldest)) = self.buckets_by_use.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        admitted
    }
}

fn identity(regarding: &Value) -> String {
    let part = |name: &str| regarding[name].as_str().unwrap_or_default();
    [part("apiVersion"), part("kind"), part("namespace"), part("name"), part("uid")].join("/")
}

/// Formats a time in whole seconds, as `metav1.Time` does.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn event(record: &Record, namespace: &str, known: &Known) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": known.name, "namespace": namespace},
        "involvedObject": record.regarding,
        "reason": record.reason,
        "message": record.message,
        "type": match record.event_type { EventType::Normal => "Normal", EventType::Warning => "Warning" },
        "count": known.count,
        "firstTimestamp": seconds(known.first),
        "lastTimestamp": seconds(known.last),
        "source": {"component": record.component},
        "reportingComponent": record.component,
        "reportingInstance": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, message: &str) -> Record {
        Record {
            component: "test".to_owned(),
            regarding: json!({"kind": "Pod", "namespace": "default", "name": name, "uid": name}),
            event_type: EventType::Normal,
            reason: "Tested".to_owned(),
            message: message.to_owned(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
    }

    #[test]
    fn repetitions_are_counted() {
        let mut correlator = Correlator::default();
        let Some(Write::Create { namespace, event }) = correlator.correlate(&record("a", "m"), at(0)) else {
            panic!("the first report makes an Event");
        };
        assert_eq!((namespace.as_str(), &event["count"]), ("default", &json!(1)));
        assert_eq!(event["firstTimestamp"], "2023-11-14T22:13:20Z");
        let Some(Write::Count { name, patch, .. }) = correlator.correlate(&record("a", "m"), at(5)) else {
            panic!("the second is counted");
        };
        assert_eq!(event["metadata"]["name"], name.as_str());
        assert_eq!(patch, json!({"count": 2, "lastTimestamp": "2023-11-14T22:13:25Z"}));
        assert!(matches!(correlator.correlate(&record("a", "other"), at(6)), Some(Write::Create { .. })));
        assert!(matches!(correlator.correlate(&record("a", "m"), at(3600)), Some(Write::Create { .. })), "too old");
    }

    #[test]
    fn one_object_cannot_flood_the_store() {
        let mut correlator = Correlator::default();
        let written = |correlator: &mut Correlator, second: i64| {
            (0..100).filter(|i| correlator.correlate(&record("a", &i.to_string()), at(second)).is_some()).count()
        };
        assert_eq!(written(&mut correlator, 0), 25);
        assert_eq!(written(&mut correlator, 600), 2);
        assert!(correlator.correlate(&record("b", "m"), at(600)).is_some(), "others are not affected");
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for i in 0..CAPACITY + 10 {
            correlator.correlate(&record(&i.to_string(), "m"), at(0));
        }
        assert_eq!(correlator.known.len(), CAPACITY);
        assert_eq!(correlator.known_by_use.len(), CAPACITY);
        assert_eq!(correlator.buckets.len(), CAPACITY);
        assert_eq!(correlator.buckets_by_use.len(), CAPACITY);
        assert!(matches!(correlator.correlate(&record("0", "m"), at(1)), Some(Write::Create { .. })), "forgotten");
    }

    #[test]
    fn events_about_cluster_scoped_objects_go_to_default() {
        let mut node = record("worker-1", "m");
        node.regarding = json!({"kind": "Node", "name": "worker-1", "uid": "u"});
        let Some(Write::Create { namespace, .. }) = Correlator::default().correlate(&node, at(0)) else {
            panic!("it makes an Event");
        };
        assert_eq!(namespace, "default");
    }
}
