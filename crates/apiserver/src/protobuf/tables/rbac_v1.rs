//! The messages of `rbac.authorization.k8s.io/v1`.

use super::meta_v1::{LabelSelector, ObjectMeta};
use super::{kind, mark, messages, shape};
use crate::protobuf::message::{Field, Kind, Message, Shape};

messages! {
    "rbac.v1" [ClusterRole, ClusterRoleBinding, Role, RoleBinding]

    AggregationRule { 1 clusterRoleSelectors: [LabelSelector] }
    ClusterRole { 1 metadata: ObjectMeta, 2 rules: [PolicyRule], 3 aggregationRule: AggregationRule }
    ClusterRoleBinding { 1 metadata: ObjectMeta, 2 subjects: [Subject], 3 roleRef: RoleRef }
    PolicyRule {
        1 verbs: [string], 2 apiGroups: [string], 3 resources: [string], 4 resourceNames: [string],
        5 nonResourceURLs: [string],
    }
    Role { 1 metadata: ObjectMeta, 2 rules: [PolicyRule] }
    RoleBinding { 1 metadata: ObjectMeta, 2 subjects: [Subject], 3 roleRef: RoleRef }
    RoleRef { 1 apiGroup!: string, 2 kind!: string, 3 name!: string }
    Subject { 1 kind!: string, 2 apiGroup: string, 3 name!: string, 4 namespace: string }
}
