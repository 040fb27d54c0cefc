//! The messages of `policy/v1`.

use super::meta_v1::{Condition, DeleteOptions, LabelSelector, ObjectMeta};
use super::{kind, mark, messages, shape};
use crate::protobuf::message::{Field, Kind, Message, Shape};

messages! {
    "policy.v1" [Eviction, PodDisruptionBudget]

    Eviction { 1 metadata: ObjectMeta, 2 deleteOptions: DeleteOptions }
    PodDisruptionBudget {
        1 metadata: ObjectMeta, 2 spec: PodDisruptionBudgetSpec, 3 status: PodDisruptionBudgetStatus,
    }
    PodDisruptionBudgetSpec {
        1 minAvailable: IntOrString, 2 selector: LabelSelector, 3 maxUnavailable: IntOrString,
        4 unhealthyPodEvictionPolicy!: string,
    }
    PodDisruptionBudgetStatus {
        1 observedGeneration: int64, 2 disruptedPods: {Time}, 3 disruptionsAllowed!: int32, 4 currentHealthy!: int32,
        5 desiredHealthy!: int32, 6 expectedPods!: int32, 7 conditions: [Condition],
    }
}
