use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::machine::Machine;

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u1", "labels": { "app": "web" } },
        "spec": { "volumes": volumes, "containers": [{ "name": "c", "volumeMounts": [
            { "name": "v", "mountPath": "/v" },
            { "name": "v", "mountPath": "/sub", "subPathExpr": "$(WHO)/logs" } ] }] },
    }))
    .expect("a well-formed pod")
}

fn settings(data: Value) -> Referenced {
    let map = json!({ "metadata": { "name": "settings" }, "data": data });
    let maps = [("settings".to_owned(), serde_json::from_value(map).expect("a map"))].into();
    Referenced { config_maps: maps, ..Referenced::default() }
}

async fn prepare_in(dir: &Path, pod: &Pod, objects: &Referenced) -> Result<(), String> {
    let machine = Machine::default();
    let facts = Facts { pod, pod_ips: &[], host_ip: "", machine: &machine };
    prepare(dir, objects, facts).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn files_change_all_at_once_and_disappear_with_their_keys() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pod = pod(json!([{ "name": "v", "configMap": { "name": "settings", "defaultMode": 256 } }]));
    let volume = volume_dir(dir.path(), "u1", "v");
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "1", "b": "2" }))).await.expect("prepared");
    assert_eq!(std::fs::read_to_string(volume.join("a")).expect("a"), "1");
    let mode = std::fs::metadata(volume.join("a")).expect("a").permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    let first = std::fs::read_link(volume.join("..data")).expect("the link");
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "1", "b": "2" }))).await.expect("prepared");
    assert_eq!(std::fs::read_link(volume.join("..data")).expect("the link"), first, "nothing changed");
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "one" }))).await.expect("prepared");
    assert_eq!(std::fs::read_to_string(volume.join("a")).expect("a"), "one");
    assert!(std::fs::symlink_metadata(volume.join("b")).is_err(), "the key is gone, and so is the file");
    assert!(!volume.join(first).exists(), "the old generation is gone");
    clean_up(dir.path(), "u1").await.expect("cleaned up");
    assert!(!pod_dir(dir.path(), "u1").exists());
}

#[tokio::test]
async fn items_choose_paths_and_projections_put_things_together() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pod = pod(json!([{ "name": "v", "projected": { "sources": [
        { "configMap": { "name": "settings", "items": [{ "key": "a", "path": "deep/er/file" }] } },
        { "configMap": { "name": "absent", "optional": true } },
        { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
    ] } }]));
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "1", "b": "2" }))).await.expect("prepared");
    let volume = volume_dir(dir.path(), "u1", "v");
    assert_eq!(std::fs::read_to_string(volume.join("deep/er/file")).expect("the file"), "1");
    assert_eq!(std::fs::read_to_string(volume.join("labels")).expect("the labels"), "app=\"web\"");
    assert!(!volume.join("b").exists());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let absent = pod(json!([{ "name": "v", "secret": { "secretName": "keys" } }]));
    let error = prepare_in(dir.path(), &absent, &Referenced::default()).await.expect_err("it does not exist");
    assert_eq!(error, "MountVolume.SetUp failed for volume \"v\" : secret \"keys\" not found");
    let key =
        pod(json!([{ "name": "v", "configMap": { "name": "settings", "items": [{ "key": "x", "path": "x" }] } }]));
    let error = prepare_in(dir.path(), &key, &settings(json!({}))).await.expect_err("no such key");
    assert!(error.ends_with("references non-existent key x of configmap \"settings\""), "{error}");
    let escape =
        pod(json!([{ "name": "v", "configMap": { "name": "settings", "items": [{ "key": "a", "path": "../x" }] } }]));
    let error =
        prepare_in(dir.path(), &escape, &settings(json!({ "a": "1" }))).await.expect_err("it leaves the volume");
    assert!(error.ends_with("the path ../x leaves the volume"), "{error}");
    let file = pod(json!([{ "name": "v", "hostPath": { "path": dir.path(), "type": "File" } }]));
    assert!(prepare_in(dir.path(), &file, &Referenced::default()).await.is_err(), "a directory is no file");
    let claim = pod(json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]));
    assert!(prepare_in(dir.path(), &claim, &Referenced::default()).await.is_err());
}

#[tokio::test]
async fn mounts_stay_inside_their_volumes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pod = pod(json!([{ "name": "v", "emptyDir": {} }]));
    prepare_in(dir.path(), &pod, &Referenced::default()).await.expect("prepared");
    let volume = volume_dir(dir.path(), "u1", "v");
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let who = |value: &str| BTreeMap::from([("WHO".to_owned(), value.to_owned())]);
    let mounts = bind_mounts(dir.path(), &pod, container, &who("me")).expect("mounts");
    assert_eq!(mounts[0].source, volume);
    assert_eq!(mounts[1].source, volume.join("me/logs").canonicalize().expect("it was made"));
    assert!(matches!(bind_mounts(dir.path(), &pod, container, &who("..")), Err(VolumeError::Escape { .. })));
    std::os::unix::fs::symlink("/", volume.join("root")).expect("a link");
    let outside = bind_mounts(dir.path(), &pod, container, &who("root/tmp"));
    assert!(matches!(outside, Err(VolumeError::Escape { .. })), "{outside:?}");
}
