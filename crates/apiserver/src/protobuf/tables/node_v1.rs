//! The messages of `node.k8s.io/v1`.

use super::core_v1_pod::Toleration;
use super::meta_v1::ObjectMeta;
use super::{kind, mark, messages, shape};
use crate::protobuf::message::{Field, Kind, Message, Shape};

messages! {
    "node.v1" [RuntimeClass]

    Overhead { 1 podFixed: {Quantity} }
    RuntimeClass { 1 metadata: ObjectMeta, 2 handler!: string, 3 overhead: Overhead, 4 scheduling: Scheduling }
    Scheduling { 1 nodeSelector: {string}, 2 tolerations: [Toleration] }
}
