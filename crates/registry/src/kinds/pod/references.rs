//! The objects that a pod refers to, which its node must read to run it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EphemeralContainer, PodSpec, Volume};
use serde::Deserialize;

/// The kinds of objects that pods refer to in their own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    ConfigMap,
    PersistentVolumeClaim,
    Secret,
    ServiceAccount,
}

/// The node of a bound pod, and the objects that the pod refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReferences {
    pub node: String,
    pub objects: BTreeSet<(ReferenceKind, String)>,
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// Returns the references of a stored pod; `None` while the pod is not bound to a node.
///
/// # Errors
/// When `stored` is not a pod.
pub fn references(stored: &[u8]) -> Result<Option<PodReferences>, serde_json::Error> {
    let Pod { metadata, spec } = serde_json::from_slice(stored)?;
    let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) else { return Ok(None) };
    let mut found = Found::default();
    found.service_account(spec.service_account_name.as_deref());
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.secret(Some(secret.name.as_str()));
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for Container { env, env_from, .. } in containers {
        found.environment(env.as_deref(), env_from.as_deref());
    }
    for EphemeralContainer { env, env_from, .. } in spec.ephemeral_containers.iter().flatten() {
        found.environment(env.as_deref(), env_from.as_deref());
    }
    for volume in spec.volumes.iter().flatten() {
        found.volume(&metadata.name, volume);
    }
    Ok(Some(PodReferences { node, objects: found.objects }))
}

#[derive(Default)]
struct Found {
    objects: BTreeSet<(ReferenceKind, String)>,
}

impl Found {
    fn add(&mut self, kind: ReferenceKind, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.objects.insert((kind, name.to_owned()));
        }
    }

    fn secret(&mut self, name: Option<&str>) {
        self.add(ReferenceKind::Secret, name);
    }

    fn config_map(&mut self, name: Option<&str>) {
        self.add(ReferenceKind::ConfigMap, name);
    }

    fn service_account(&mut self, name: Option<&str>) {
        self.add(ReferenceKind::ServiceAccount, name);
    }

    fn environment(&mut self, env: Option<&[EnvVar]>, env_from: Option<&[EnvFromSource]>) {
        for source in env_from.unwrap_or_default() {
            self.config_map(source.config_map_ref.as_ref().map(|r| r.name.as_str()));
            self.secret(source.secret_ref.as_ref().map(|r| r.name.as_str()));
        }
        for source in env.unwrap_or_default().iter().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_map(source.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
            self.secret(source.secret_key_ref.as_ref().map(|r| r.name.as_str()));
        }
    }

    fn volume(&mut self, pod: &str, volume: &Volume) {
        self.config_map(volume.config_map.as_ref().map(|source| source.name.as_str()));
        self.secret(volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            self.config_map(source.config_map.as_ref().map(|projection| projection.name.as_str()));
            self.secret(source.secret.as_ref().map(|projection| projection.name.as_str()));
        }
        let claim = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.as_str());
        self.add(ReferenceKind::PersistentVolumeClaim, claim);
        if volume.ephemeral.is_some() {
            self.add(ReferenceKind::PersistentVolumeClaim, Some(&format!("{pod}-{}", volume.name)));
        }
        self.secret(volume.azure_file.as_ref().map(|source| source.secret_name.as_str()));
        let local = [
            volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
            volume.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
            volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
            volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
            volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
            volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
            volume.scale_io.as_ref().map(|source| &source.secret_ref),
            volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()),
        ];
        for reference in local.into_iter().flatten() {
            self.secret(Some(reference.name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_reference_is_found() {
        let env = |suffix: &str| {
            json!({
                "name": suffix, "image": "i",
                "envFrom": [
                    {"configMapRef": {"name": format!("from-map-{suffix}")}},
                    {"secretRef": {"name": format!("from-secret-{suffix}")}},
                ],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": format!("map-{suffix}"), "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": format!("secret-{suffix}"), "key": "k"}}},
                ],
            })
        };
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "containers": [env("c")], "initContainers": [env("i")], "ephemeralContainers": [env("e")],
            "volumes": [
                {"name": "1", "configMap": {"name": "vol-map"}},
                {"name": "2", "secret": {"secretName": "vol-secret"}},
                {"name": "3", "projected": {"sources": [
                    {"configMap": {"name": "pro-map"}}, {"secret": {"name": "pro-secret"}}]}},
                {"name": "4", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "scratch", "ephemeral": {}},
                {"name": "5", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "6", "azureFile": {"secretName": "azure", "shareName": "s"}},
                {"name": "7", "cephfs": {"monitors": [], "secretRef": {"name": "ceph"}}},
                {"name": "8", "cinder": {"volumeID": "v", "secretRef": {"name": "cinder"}}},
                {"name": "9", "flexVolume": {"driver": "d", "secretRef": {"name": "flex"}}},
                {"name": "10", "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t", "secretRef": {"name": "iscsi"}}},
                {"name": "11", "rbd": {"image": "i", "monitors": [], "secretRef": {"name": "rbd"}}},
                {"name": "12", "scaleIO": {"gateway": "g", "system": "s", "secretRef": {"name": "scaleio"}}},
                {"name": "13", "storageos": {"secretRef": {"name": "storageos"}}},
            ],
        }});
        let found = references(pod.to_string().as_bytes()).expect("a pod").expect("it is bound");
        assert_eq!(found.node, "n1");
        let names = |kind| {
            let of_kind = found.objects.iter().filter(move |(other, _)| *other == kind);
            of_kind.map(|(_, name)| name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(ReferenceKind::ConfigMap),
            ["from-map-c", "from-map-e", "from-map-i", "map-c", "map-e", "map-i", "pro-map", "vol-map"]
        );
        assert_eq!(
            names(ReferenceKind::Secret),
            [
                "azure",
                "ceph",
                "cinder",
                "csi",
                "flex",
                "from-secret-c",
                "from-secret-e",
                "from-secret-i",
                "iscsi",
                "pro-secret",
                "pull",
                "rbd",
                "scaleio",
                "secret-c",
                "secret-e",
                "secret-i",
                "storageos",
                "vol-secret",
            ]
        );
        assert_eq!(names(ReferenceKind::PersistentVolumeClaim), ["claim", "p-scratch"]);
        assert_eq!(names(ReferenceKind::ServiceAccount), ["robot"]);
        let unbound = json!({"spec": {"containers": []}});
        assert_eq!(references(unbound.to_string().as_bytes()).expect("a pod"), None);
    }
}
