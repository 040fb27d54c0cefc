//! The messages of `scheduling.k8s.io/v1`.

use super::meta_v1::ObjectMeta;
use super::{kind, mark, messages, shape};
use crate::protobuf::message::{Field, Kind, Message, Shape};

messages! {
    "scheduling.v1" [PriorityClass]

    PriorityClass {
        1 metadata: ObjectMeta, 2 value!: int32, 3 globalDefault: bool, 4 description: string,
        5 preemptionPolicy!: string,
    }
}
