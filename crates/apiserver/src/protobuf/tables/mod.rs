//! Tables of the API's messages, one for each group. They hold data only.
//!
//! A message is written `Name { number name: type, … }`, its fields by their names in JSON:
//!
//! - `[type]` is a list, `{type}` a map from strings.
//! - `name!` is written even if it is zero: either zero differs from absence (a pointer in Kubernetes' Go types), or the
//!   field is never absent. A field without the mark is left out when it is zero, as by Go's `omitempty`.
//! - `_: Message` stands for a message whose fields are written in place of the field.
//! - `Strings` is a message that wraps a list of strings, which in JSON is the list.
//!
//! Each table begins with its package and, in brackets, the messages that come as a request's body. The tables know the
//! fields of Kubernetes 1.36, whose `generated.proto` files `testdata/kubernetes-1.36.txt` condenses.

#![expect(non_upper_case_globals, reason = "a message's table bears the message's name")]

mod admissionregistration_v1;
mod apiregistration_v1;
mod apps_v1;
mod authentication_v1;
mod authorization_v1;
mod autoscaling_v1;
mod autoscaling_v2;
mod batch_v1;
mod certificates_v1;
mod coordination_v1;
mod core_v1;
mod core_v1_pod;
mod core_v1_volume;
mod discovery_v1;
mod events_v1;
mod flowcontrol_v1;
mod meta_v1;
mod networking_v1;
mod node_v1;
mod policy_v1;
mod rbac_v1;
mod resource_v1;
mod scheduling_v1;
mod storage_v1;

use super::message::Message;

macro_rules! messages {
    ($package:literal $([$($kind:ident),*])? $($message:ident {
        $($number:literal $name:tt $(! $($never:lifetime)?)? : $type:tt),* $(,)?
    })*) => {
        $(pub(in crate::protobuf) static KINDS: &[&Message] = &[$(&$kind),*];)?
        $(pub(in crate::protobuf) static $message: Message = Message {
            name: concat!($package, ".", stringify!($message)),
            fields: &[$(Field {
                number: $number,
                name: stringify!($name),
                keeps_zero: mark!($(! $($never)?)?),
                shape: shape!($name $type),
            }),*],
        };)*
    };
}

macro_rules! mark {
    () => {
        false
    };
    (!) => {
        true
    };
}

macro_rules! shape {
    (_ $message:ident) => {
        Shape::Inline(&$message)
    };
    ($name:tt [$type:tt]) => {
        Shape::List(kind!($type))
    };
    ($name:tt {$type:tt}) => {
        Shape::Map(kind!($type))
    };
    ($name:tt $type:tt) => {
        Shape::One(kind!($type))
    };
}

macro_rules! kind {
    (string) => {
        Kind::String
    };
    (bytes) => {
        Kind::Bytes
    };
    (bool) => {
        Kind::Bool
    };
    (int32) => {
        Kind::Int32
    };
    (int64) => {
        Kind::Int64
    };
    (Strings) => {
        Kind::Strings
    };
    (Time) => {
        Kind::Time
    };
    (MicroTime) => {
        Kind::MicroTime
    };
    (Quantity) => {
        Kind::Quantity
    };
    (IntOrString) => {
        Kind::IntOrString
    };
    (Raw) => {
        Kind::Raw
    };
    ($message:ident) => {
        Kind::Message(&$message)
    };
}

use {kind, mark, messages, shape};

static GROUPS: &[(&str, &[&Message])] = &[
    ("v1", core_v1::KINDS),
    ("admissionregistration.k8s.io/v1", admissionregistration_v1::KINDS),
    ("apiregistration.k8s.io/v1", apiregistration_v1::KINDS),
    ("apps/v1", apps_v1::KINDS),
    ("authentication.k8s.io/v1", authentication_v1::KINDS),
    ("authorization.k8s.io/v1", authorization_v1::KINDS),
    ("autoscaling/v1", autoscaling_v1::KINDS),
    ("autoscaling/v2", autoscaling_v2::KINDS),
    ("batch/v1", batch_v1::KINDS),
    ("certificates.k8s.io/v1", certificates_v1::KINDS),
    ("coordination.k8s.io/v1", coordination_v1::KINDS),
    ("discovery.k8s.io/v1", discovery_v1::KINDS),
    ("events.k8s.io/v1", events_v1::KINDS),
    ("flowcontrol.apiserver.k8s.io/v1", flowcontrol_v1::KINDS),
    ("meta.k8s.io/v1", meta_v1::KINDS),
    ("networking.k8s.io/v1", networking_v1::KINDS),
    ("node.k8s.io/v1", node_v1::KINDS),
    ("policy/v1", policy_v1::KINDS),
    ("rbac.authorization.k8s.io/v1", rbac_v1::KINDS),
    ("resource.k8s.io/v1", resource_v1::KINDS),
    ("scheduling.k8s.io/v1", scheduling_v1::KINDS),
    ("storage.k8s.io/v1", storage_v1::KINDS),
];

/// The message of a kind. The options of `meta.k8s.io` are known to every group, under its own version.
pub(super) fn find(api_version: &str, kind: &str) -> Option<&'static Message> {
    let named = |messages: &[&'static Message]| messages.iter().copied().find(|message| message.kind() == kind);
    let group = GROUPS.iter().find(|(version, _)| *version == api_version).map(|(_, messages)| *messages);
    group.and_then(named).or_else(|| named(meta_v1::KINDS))
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static Message)> {
    GROUPS.iter().flat_map(|(version, messages)| messages.iter().map(move |message| (*version, *message)))
}
