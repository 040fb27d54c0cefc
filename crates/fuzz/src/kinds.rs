//! The types that inputs are read as. The first byte of an input selects one.

use quorate_schema::{TypeId, builtin};

/// Kinds that have every form of value in them. Their order is part of the format of the inputs.
pub(crate) const KINDS: [(&str, &str); 16] = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Node"),
    ("v1", "Event"),
    ("v1", "ResourceQuota"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ControllerRevision"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    ("coordination.k8s.io/v1", "Lease"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("resource.k8s.io/v1", "ResourceSlice"),
    ("meta.k8s.io/v1", "DeleteOptions"),
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct InputKind {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub ty: TypeId,
}

/// Returns the kind that the first byte selects, and the rest of the input.
pub(crate) fn split(data: &[u8]) -> Option<(InputKind, &[u8])> {
    let (first, rest) = data.split_first()?;
    let (api_version, kind) = KINDS[usize::from(*first) % KINDS.len()];
    let ty = builtin().kind(api_version, kind).expect("a built-in kind");
    Some((InputKind { api_version, kind, ty }, rest))
}

/// Returns the byte that selects a kind. It is printable, so that inputs can be read.
pub(crate) fn selector(api_version: &str, kind: &str) -> Option<u8> {
    let index = KINDS.iter().position(|known| *known == (api_version, kind))?;
    u8::try_from(index).ok().map(|index| b'@' + index)
}
