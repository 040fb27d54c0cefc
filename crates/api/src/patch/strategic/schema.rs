//! The lists that merge, with their keys: the `patchStrategy` and `patchMergeKey` tags of the Kubernetes types.
//!
//! A type appears here when it or a type below it has such a tag. Other fields need no entry, because maps merge and
//! lists are replaced. A test compares the table with the tags of Kubernetes' OpenAPI documents.

use crate::gvk::GroupVersionKind;

/// The merge rules of an object type.
#[derive(Debug)]
pub struct Type {
    /// The type's name in OpenAPI, without `io.k8s.api.` or `io.k8s.apimachinery.pkg.apis.`.
    pub name: &'static str,
    pub fields: &'static [Field],
}

/// A field whose list merges, or that contains such a field.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub list: List,
    /// The type of the field, or of its elements if it is a list.
    pub ty: Option<&'static Type>,
}

/// The merge rule of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// The patch's list replaces the object's.
    Replace,
    /// The union of two lists of scalars.
    MergeScalars,
    /// Elements with the same value of this key merge.
    MergeBy(&'static str),
}

impl Type {
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Returns the type of a built-in kind; `None` for kinds of other groups, which have no strategies.
#[must_use]
pub fn root(kind: &GroupVersionKind) -> Option<&'static Type> {
    let known = ROOTS.iter().find(|(group, name, _)| *group == kind.group && *name == kind.kind);
    match known {
        Some((_, _, ty)) => Some(ty),
        None => BUILTIN_GROUPS.contains(&kind.group.as_ref()).then_some(&METADATA_ONLY),
    }
}

const BUILTIN_GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Group, kind and type of the kinds that have tags of their own.
pub static ROOTS: &[(&str, &str, &Type)] = &[
    ("", "Namespace", &NAMESPACE),
    ("", "Node", &NODE),
    ("", "Pod", &POD),
    ("", "Service", &SERVICE),
    ("", "ServiceAccount", &SERVICE_ACCOUNT),
    ("apps", "Deployment", &DEPLOYMENT),
    ("apps", "ReplicaSet", &REPLICA_SET),
];

const fn under(name: &'static str, ty: &'static Type) -> Field {
    Field { name, list: List::Replace, ty: Some(ty) }
}

const fn merge_by(name: &'static str, key: &'static str) -> Field {
    Field { name, list: List::MergeBy(key), ty: None }
}

const fn merge_by_as(name: &'static str, key: &'static str, ty: &'static Type) -> Field {
    Field { name, list: List::MergeBy(key), ty: Some(ty) }
}

const fn merge_scalars(name: &'static str) -> Field {
    Field { name, list: List::MergeScalars, ty: None }
}

static OBJECT_META: Type =
    Type { name: "meta.v1.ObjectMeta", fields: &[merge_scalars("finalizers"), merge_by("ownerReferences", "uid")] };

const METADATA: Field = under("metadata", &OBJECT_META);

static METADATA_ONLY: Type = Type { name: "", fields: &[METADATA] };

static CONTAINER_FIELDS: &[Field] = &[
    merge_by("env", "name"),
    merge_by("ports", "containerPort"),
    merge_by("volumeDevices", "devicePath"),
    merge_by("volumeMounts", "mountPath"),
];

static CONTAINER: Type = Type { name: "core.v1.Container", fields: CONTAINER_FIELDS };

static EPHEMERAL_CONTAINER: Type = Type { name: "core.v1.EphemeralContainer", fields: CONTAINER_FIELDS };

static EPHEMERAL_VOLUME_SOURCE: Type = Type {
    name: "core.v1.EphemeralVolumeSource",
    fields: &[under("volumeClaimTemplate", &PERSISTENT_VOLUME_CLAIM_TEMPLATE)],
};

static PERSISTENT_VOLUME_CLAIM_TEMPLATE: Type =
    Type { name: "core.v1.PersistentVolumeClaimTemplate", fields: &[METADATA] };

static VOLUME: Type = Type { name: "core.v1.Volume", fields: &[under("ephemeral", &EPHEMERAL_VOLUME_SOURCE)] };

static POD_SPEC: Type = Type {
    name: "core.v1.PodSpec",
    fields: &[
        merge_by_as("containers", "name", &CONTAINER),
        merge_by_as("ephemeralContainers", "name", &EPHEMERAL_CONTAINER),
        merge_by("hostAliases", "ip"),
        merge_by("imagePullSecrets", "name"),
        merge_by_as("initContainers", "name", &CONTAINER),
        merge_by("resourceClaims", "name"),
        merge_by("schedulingGates", "name"),
        merge_by("topologySpreadConstraints", "topologyKey"),
        merge_by_as("volumes", "name", &VOLUME),
    ],
};

static CONTAINER_STATUS: Type = Type {
    name: "core.v1.ContainerStatus",
    fields: &[merge_by("allocatedResourcesStatus", "name"), merge_by("volumeMounts", "mountPath")],
};

static POD_STATUS: Type = Type {
    name: "core.v1.PodStatus",
    fields: &[
        merge_by("conditions", "type"),
        under("containerStatuses", &CONTAINER_STATUS),
        under("ephemeralContainerStatuses", &CONTAINER_STATUS),
        merge_by("hostIPs", "ip"),
        under("initContainerStatuses", &CONTAINER_STATUS),
        merge_by("podIPs", "ip"),
        merge_by("resourceClaimStatuses", "name"),
    ],
};

static POD: Type =
    Type { name: "core.v1.Pod", fields: &[METADATA, under("spec", &POD_SPEC), under("status", &POD_STATUS)] };

static POD_TEMPLATE_SPEC: Type =
    Type { name: "core.v1.PodTemplateSpec", fields: &[METADATA, under("spec", &POD_SPEC)] };

static CONDITIONS: &[Field] = &[merge_by("conditions", "type")];

static NAMESPACE_STATUS: Type = Type { name: "core.v1.NamespaceStatus", fields: CONDITIONS };

static NAMESPACE: Type = Type { name: "core.v1.Namespace", fields: &[METADATA, under("status", &NAMESPACE_STATUS)] };

static NODE_SPEC: Type = Type { name: "core.v1.NodeSpec", fields: &[merge_scalars("podCIDRs")] };

static NODE_STATUS: Type =
    Type { name: "core.v1.NodeStatus", fields: &[merge_by("addresses", "type"), merge_by("conditions", "type")] };

static NODE: Type =
    Type { name: "core.v1.Node", fields: &[METADATA, under("spec", &NODE_SPEC), under("status", &NODE_STATUS)] };

static SERVICE_SPEC: Type = Type { name: "core.v1.ServiceSpec", fields: &[merge_by("ports", "port")] };

static SERVICE_STATUS: Type = Type { name: "core.v1.ServiceStatus", fields: CONDITIONS };

static SERVICE: Type = Type {
    name: "core.v1.Service",
    fields: &[METADATA, under("spec", &SERVICE_SPEC), under("status", &SERVICE_STATUS)],
};

static SERVICE_ACCOUNT: Type =
    Type { name: "core.v1.ServiceAccount", fields: &[METADATA, merge_by("secrets", "name")] };

static DEPLOYMENT_SPEC: Type =
    Type { name: "apps.v1.DeploymentSpec", fields: &[under("template", &POD_TEMPLATE_SPEC)] };

static DEPLOYMENT_STATUS: Type = Type { name: "apps.v1.DeploymentStatus", fields: CONDITIONS };

static DEPLOYMENT: Type = Type {
    name: "apps.v1.Deployment",
    fields: &[METADATA, under("spec", &DEPLOYMENT_SPEC), under("status", &DEPLOYMENT_STATUS)],
};

static REPLICA_SET_SPEC: Type =
    Type { name: "apps.v1.ReplicaSetSpec", fields: &[under("template", &POD_TEMPLATE_SPEC)] };

static REPLICA_SET_STATUS: Type = Type { name: "apps.v1.ReplicaSetStatus", fields: CONDITIONS };

static REPLICA_SET: Type = Type {
    name: "apps.v1.ReplicaSet",
    fields: &[METADATA, under("spec", &REPLICA_SET_SPEC), under("status", &REPLICA_SET_STATUS)],
};
