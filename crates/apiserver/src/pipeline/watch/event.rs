//! Watch events, each decoded and encoded at most once however many clients watch it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_api::{GroupVersionResource, Revision, Status};
use quorate_mvcc::{Event, KeyValue};
use quorate_schema::protobuf::wire::Writer;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::pipeline::selection::Selection;
use crate::representation::{Encoding, Negotiated};
use crate::response::encode_one;

/// Number of events of one resource that are kept for watchers that reach them a little later.
const KEPT: usize = 128;

/// The type of an event from the point of view of one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// The newest events of each kind in each version, shared by all watchers of this member.
#[derive(Default)]
pub(crate) struct SharedEvents {
    rings: Mutex<HashMap<GroupVersionResource, Arc<RecentEvents>>>,
}

impl SharedEvents {
    /// Returns the events of a kind for the watches of one of its versions.
    pub fn of(&self, version: &Served) -> Arc<RecentEvents> {
        Arc::clone(self.rings.lock().entry(version.descriptor.resource.clone()).or_default())
    }
}

/// The newest events of one resource.
#[derive(Default)]
pub(crate) struct RecentEvents {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    events: HashMap<(Revision, Bytes), Arc<SharedEvent>>,
    order: VecDeque<(Revision, Bytes)>,
}

impl RecentEvents {
    /// Returns the shared form of an event.
    pub fn share(&self, event: &Event) -> Arc<SharedEvent> {
        let position = (event.kv().mod_revision, event.kv().key.clone());
        let mut ring = self.ring.lock();
        if let Some(shared) = ring.events.get(&position) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(SharedEvent::new(event.clone()));
        ring.events.insert(position.clone(), Arc::clone(&shared));
        ring.order.push_back(position);
        if ring.order.len() > KEPT
            && let Some(oldest) = ring.order.pop_front()
        {
            ring.events.remove(&oldest);
        }
        shared
    }
}

pub(crate) struct SharedEvent {
    event: Event,
    object: OnceLock<Option<Value>>,
    previous: OnceLock<Option<Value>>,
    frames: Mutex<Vec<((EventType, Negotiated), Bytes)>>,
}

impl SharedEvent {
    pub fn new(event: Event) -> Self {
        SharedEvent { event, object: OnceLock::new(), previous: OnceLock::new(), frames: Mutex::default() }
    }

    pub fn revision(&self) -> Revision {
        self.event.kv().mod_revision
    }

    /// Returns the event's type for a watcher with this selection: an object that begins to match is added, one that
    /// ceases to match is deleted. `None` means that the watcher does not see the event.
    pub fn classify(&self, served: &Served, selection: &Selection) -> Option<EventType> {
        let matches = |value: Option<&Value>| value.is_some_and(|object| selection.matches(served, object));
        let (is_there, was_there) = match &self.event {
            Event::Put { kv, .. } => {
                let existed = kv.create_revision != kv.mod_revision;
                if selection.is_everything() {
                    (true, existed)
                } else {
                    // Where the previous version is no longer kept, a watcher may or may not know the object. Adding or
                    // deleting an object twice does no harm.
                    let is_there = matches(self.object());
                    let was_there = existed && self.event.prev().map_or(!is_there, |_| matches(self.previous()));
                    (is_there, was_there)
                }
            }
            Event::Delete { .. } => (false, selection.is_everything() || matches(self.previous())),
        };
        match (is_there, was_there) {
            (true, false) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (false, true) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// Returns the event as a frame of the stream. A deleted object is shown in the last state that the watcher knew,
    /// with the revision of the deletion.
    ///
    /// # Errors
    /// When that state is no longer kept, or cannot be decoded.
    pub fn frame(&self, served: &Served, what: EventType, negotiated: Negotiated) -> Result<Bytes, Status> {
        let form = (what, negotiated);
        let mut frames = self.frames.lock();
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == form) {
            return Ok(frame.clone());
        }
        let value = match (&self.event, what) {
            (Event::Put { kv, .. }, EventType::Added | EventType::Modified) => &kv.value,
            (Event::Put { kv, .. }, EventType::Deleted) => self.event.prev().map_or(&kv.value, |prev| &prev.value),
            (Event::Delete { .. }, _) => {
                let lost = || Status::expired("too old resource version: the deleted object is no longer known");
                &self.event.prev().ok_or_else(lost)?.value
            }
        };
        let frame = frame(served, what, value, self.revision(), negotiated)?;
        frames.push((form, frame.clone()));
        Ok(frame)
    }

    /// Returns the values of a selectable field before and after the change. `None` means that a value is not known.
    pub fn values(&self, served: &Served, field: &str) -> Option<Vec<String>> {
        let value = |object: &Value| {
            let fields = served.descriptor.strategy.selectable_fields(object);
            fields.into_iter().find(|(name, _)| *name == field).map(|(_, value)| value)
        };
        let mut values = Vec::new();
        if let Event::Put { kv, .. } = &self.event {
            values.push(value(self.object()?)?);
            if kv.create_revision == kv.mod_revision {
                return Some(values);
            }
        }
        values.push(value(self.previous()?)?);
        Some(values)
    }

    fn object(&self) -> Option<&Value> {
        let decode = || decode(Some(self.event.kv()));
        self.object.get_or_init(decode).as_ref()
    }

    fn previous(&self) -> Option<&Value> {
        self.previous.get_or_init(|| decode(self.event.prev())).as_ref()
    }
}

fn decode(kv: Option<&KeyValue>) -> Option<Value> {
    let kv = kv?;
    serde_json::from_slice(&kv.value)
        .inspect_err(|error| tracing::error!(key = %String::from_utf8_lossy(&kv.key), %error, "a stored object cannot be decoded"))
        .ok()
}

/// Encodes one event of a watch.
///
/// # Errors
/// When the value cannot be decoded.
pub(crate) fn frame(
    served: &Served,
    what: EventType,
    value: &[u8],
    revision: Revision,
    negotiated: Negotiated,
) -> Result<Bytes, Status> {
    let mut object = Vec::with_capacity(value.len() + 96);
    encode_one(served, value, revision, negotiated.representation, &mut object)?;
    framed(what.as_str(), &object, negotiated.encoding)
}

/// Encodes an event whose object is JSON: as a line of JSON, a `WatchEvent` of Protocol Buffers after its length in four
/// bytes, or a document of a CBOR sequence.
///
/// # Errors
/// When the object has no form in the encoding.
pub(crate) fn framed(what: &str, object: &[u8], encoding: Encoding) -> Result<Bytes, Status> {
    let decoded = || serde_json::from_slice::<Value>(object).map_err(Status::internal);
    match encoding {
        Encoding::Json | Encoding::Yaml => {
            let mut out = Vec::with_capacity(object.len() + 32);
            out.extend_from_slice(format!("{{\"type\":\"{what}\",\"object\":").as_bytes());
            out.extend_from_slice(object);
            out.extend_from_slice(b"}\n");
            Ok(out.into())
        }
        Encoding::Cbor => Ok(encoding.encode(&json!({ "type": what, "object": decoded()? }))?.into()),
        Encoding::Protobuf => {
            let raw = Writer::default().bytes(1, encoding.encode(&decoded()?)?);
            let event = Writer::default().bytes(1, what).bytes(2, raw);
            let length = u32::try_from(event.as_ref().len()).map_err(Status::internal)?;
            Ok([&length.to_be_bytes(), event.as_ref()].concat().into())
        }
    }
}
