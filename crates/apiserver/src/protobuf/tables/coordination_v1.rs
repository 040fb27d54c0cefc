//! The messages of `coordination.k8s.io/v1`.

use super::meta_v1::ObjectMeta;
use super::{kind, mark, messages, shape};
use crate::protobuf::message::{Field, Kind, Message, Shape};

messages! {
    "coordination.v1" [Lease]

    Lease { 1 metadata: ObjectMeta, 2 spec: LeaseSpec }
    LeaseSpec {
        1 holderIdentity!: string, 2 leaseDurationSeconds!: int32, 3 acquireTime: MicroTime, 4 renewTime: MicroTime,
        5 leaseTransitions!: int32, 6 strategy!: string, 7 preferredHolder!: string,
    }
}
