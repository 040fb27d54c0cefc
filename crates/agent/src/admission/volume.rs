//! Types of volumes.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, ProjectedVolumeSource,
    SecretVolumeSource, Volume, VolumeProjection,
};
use quorate_api::quantity::Quantity;

use super::Findings;

pub(super) fn examine(volume: &Volume, path: &str, findings: &mut Findings) {
    let Volume {
        name: _,
        // Made by the agent.
        config_map,
        downward_api,
        empty_dir,
        host_path,
        projected,
        secret,
        aws_elastic_block_store,
        azure_disk,
        azure_file,
        cephfs,
        cinder,
        csi,
        ephemeral,
        fc,
        flex_volume,
        flocker,
        gce_persistent_disk,
        git_repo,
        glusterfs,
        image,
        iscsi,
        nfs,
        persistent_volume_claim,
        photon_persistent_disk,
        portworx_volume,
        quobyte,
        rbd,
        scale_io,
        storageos,
        vsphere_volume,
    } = volume;
    let refused = [
        (aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (azure_disk.is_some(), "azureDisk"),
        (azure_file.is_some(), "azureFile"),
        (cephfs.is_some(), "cephfs"),
        (cinder.is_some(), "cinder"),
        (csi.is_some(), "csi"),
        (ephemeral.is_some(), "ephemeral"),
        (fc.is_some(), "fc"),
        (flex_volume.is_some(), "flexVolume"),
        (flocker.is_some(), "flocker"),
        (gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (git_repo.is_some(), "gitRepo"),
        (glusterfs.is_some(), "glusterfs"),
        (image.is_some(), "image"),
        (iscsi.is_some(), "iscsi"),
        (nfs.is_some(), "nfs"),
        (persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (portworx_volume.is_some(), "portworxVolume"),
        (quobyte.is_some(), "quobyte"),
        (rbd.is_some(), "rbd"),
        (scale_io.is_some(), "scaleIO"),
        (storageos.is_some(), "storageos"),
        (vsphere_volume.is_some(), "vsphereVolume"),
    ];
    let has_known = config_map.is_some() || downward_api.is_some() || host_path.is_some() || secret.is_some();
    let has_known = has_known || empty_dir.is_some() || projected.is_some();
    if !has_known && refused.iter().all(|(is_set, _)| !is_set) {
        findings.refuse(path, "the volume has no type");
    }
    for (is_set, kind) in refused {
        findings.refuse_if(is_set, &format!("{path}.{kind}"));
    }
    made_whole(config_map.as_ref(), downward_api.as_ref(), host_path.as_ref(), secret.as_ref());
    if let Some(source) = empty_dir {
        of_empty_dir(source, &format!("{path}.emptyDir"), findings);
    }
    if let Some(source) = projected {
        of_projected(source, &format!("{path}.projected"), findings);
    }
}

/// Lists the fields of volume types that are honoured completely.
fn made_whole(
    config_map: Option<&ConfigMapVolumeSource>,
    downward_api: Option<&DownwardAPIVolumeSource>,
    host_path: Option<&HostPathVolumeSource>,
    secret: Option<&SecretVolumeSource>,
) {
    if let Some(ConfigMapVolumeSource { default_mode: _, items: _, name: _, optional: _ }) = config_map {}
    if let Some(DownwardAPIVolumeSource { default_mode: _, items: _ }) = downward_api {}
    if let Some(HostPathVolumeSource { path: _, type_: _ }) = host_path {}
    if let Some(SecretVolumeSource { default_mode: _, items: _, optional: _, secret_name: _ }) = secret {}
}

fn of_empty_dir(source: &EmptyDirVolumeSource, path: &str, findings: &mut Findings) {
    let EmptyDirVolumeSource { medium, size_limit } = source;
    findings.refuse_unless(medium.as_deref(), &["Memory"], &format!("{path}.medium"));
    let on_disk = medium.as_deref().is_none_or(str::is_empty);
    let limited = size_limit.as_ref().filter(|limit| Quantity::parse(&limit.0).is_ok_and(|limit| !limit.is_zero()));
    if let Some(limit) = limited.filter(|_| on_disk) {
        findings.leave_unenforced(&format!("{path}.sizeLimit={}", limit.0));
    }
}

fn of_projected(source: &ProjectedVolumeSource, path: &str, findings: &mut Findings) {
    // The mode is honoured.
    let ProjectedVolumeSource { default_mode: _, sources } = source;
    for (index, source) in sources.iter().flatten().enumerate() {
        let VolumeProjection {
            // Made by the agent.
            config_map: _,
            downward_api: _,
            secret: _,
            cluster_trust_bundle,
            pod_certificate,
            service_account_token,
        } = source;
        let refused = [
            (cluster_trust_bundle.is_some(), "clusterTrustBundle"),
            (pod_certificate.is_some(), "podCertificate"),
            (service_account_token.is_some(), "serviceAccountToken"),
        ];
        for (is_set, kind) in refused {
            findings.refuse_if(is_set, &format!("{path}.sources[{index}].{kind}"));
        }
    }
}
