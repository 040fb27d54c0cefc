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

/// A data directory. Dropping it unmounts everything below it.
struct Data(tempfile::TempDir);

impl Data {
    fn new() -> Self {
        Data(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn volume(&self) -> PathBuf {
        volume_dir(self.path(), "u1", "v")
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        mounts::unmount_below(self.path()).expect("nothing stays mounted");
    }
}

async fn prepare_with(volumes: &Volumes, pod: &Pod, objects: &Referenced) -> Result<(), String> {
    let machine = Machine::default();
    let facts = Facts { pod, pod_ips: &[], host_ip: "", machine: &machine };
    volumes.prepare(objects, facts).await.map_err(|error| error.to_string())
}

async fn prepare_in(dir: &Path, pod: &Pod, objects: &Referenced) -> Result<(), String> {
    prepare_with(&Volumes::new(dir), pod, objects).await
}

/// Creates the volumes of an agent that is not root.
fn powerless(dir: &Path) -> Volumes {
    Volumes { may_mount: false, ..Volumes::new(dir) }
}

/// Whether this test may mount file systems. In continuous integration it must.
fn mounting() -> bool {
    let allowed = machine::may_mount();
    assert!(allowed || std::env::var_os("CI").is_none(), "the tests of mounts require root");
    allowed
}

fn who(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("WHO".to_owned(), value.to_owned())])
}

fn first_container(pod: &Pod) -> &Container {
    &pod.spec.as_ref().expect("a spec").containers[0]
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the path exists").permissions().mode() & 0o7777
}

#[tokio::test]
async fn files_change_atomically_and_disappear_with_their_keys() {
    let dir = Data::new();
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
async fn items_choose_paths_and_projections_combine_sources() {
    let dir = Data::new();
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
async fn errors_name_the_missing_object_or_key() {
    let dir = Data::new();
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

fn empty_dir_pod() -> Pod {
    pod(json!([{ "name": "v", "emptyDir": {} }]))
}

#[tokio::test]
async fn a_sub_path_has_the_mode_of_its_volume_and_its_own_mount() {
    if !mounting() {
        return;
    }
    let dir = Data::new();
    let (pod, volumes) = (empty_dir_pod(), Volumes::new(dir.path()));
    prepare_with(&volumes, &pod, &Referenced::default()).await.expect("prepared");
    let mounts = volumes.bind_mounts(&pod, first_container(&pod), &who("me")).await.expect("mounts");
    assert_eq!(mounts[0].source, dir.volume());
    assert_eq!(mounts[1].source, pod_dir(dir.path(), "u1").join("volume-subpaths/v/c/1"));
    assert_eq!(mode(&dir.volume().join("me/logs")), 0o777);
    std::fs::write(dir.volume().join("me/logs/file"), "content").expect("a file");
    let read = || std::fs::read_to_string(mounts[1].source.join("file"));
    assert_eq!(read().expect("the file is seen through the mount"), "content");
    // A restarted container gets the same mounts, and mounts of an earlier agent are reused.
    for _ in 0..2 {
        let again = Volumes::new(dir.path()).bind_mounts(&pod, first_container(&pod), &who("me")).await;
        assert_eq!(again.expect("mounts"), mounts);
        assert_eq!(mounts::below(&mounts[1].source).expect("mounts").len(), 1, "it is mounted once");
    }
    // Another path replaces the mount.
    volumes.bind_mounts(&pod, first_container(&pod), &who("you")).await.expect("mounts");
    assert!(read().is_err(), "the other directory is empty");
    clean_up(dir.path(), "u1").await.expect("cleaned up");
    assert!(!pod_dir(dir.path(), "u1").exists());
    assert_eq!(mounts::below(dir.path()).expect("mounts"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn mounts_that_a_reboot_has_removed_are_noticed() {
    if !mounting() {
        return;
    }
    for source in [json!({}), json!({ "medium": "Memory" })] {
        let dir = Data::new();
        let pod = pod(json!([{ "name": "v", "emptyDir": source }]));
        let volumes = Volumes::new(dir.path());
        let container = first_container(&pod);
        assert!(!volumes.in_place(&pod, container).await.expect("the mounts can be read"), "nothing is mounted yet");
        prepare_with(&volumes, &pod, &Referenced::default()).await.expect("prepared");
        volumes.bind_mounts(&pod, container, &who("me")).await.expect("mounts");
        assert!(volumes.in_place(&pod, container).await.expect("the mounts can be read"));
        mounts::unmount_below(dir.path()).expect("as a reboot does it");
        assert!(!volumes.in_place(&pod, container).await.expect("the mounts can be read"));
    }
}

#[tokio::test]
async fn hostile_links_in_a_volume_are_refused() {
    if !mounting() {
        return;
    }
    let (dir, outside) = (Data::new(), tempfile::tempdir().expect("a temporary directory"));
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let (pod, volumes) = (empty_dir_pod(), Volumes::new(dir.path()));
    prepare_with(&volumes, &pod, &Referenced::default()).await.expect("prepared");
    let up = "../".repeat(32);
    let absolute = outside.path().to_owned();
    let relative = PathBuf::from(format!("{up}{}", absolute.display()));
    let links = [
        ("absolute", absolute.clone()),
        ("relative", relative),
        ("dangling", absolute.join("new")),
        ("root", PathBuf::from("/")),
        ("process", PathBuf::from("/proc/self/root")),
        ("loop", PathBuf::from("loop")),
    ];
    for (name, target) in &links {
        std::os::unix::fs::symlink(target, dir.volume().join(name)).expect("a link");
    }
    let paths = links.iter().map(|(name, _)| *name).chain(["..", "a/../..", "/etc", "absolute/.."]);
    for path in paths {
        let mounts = volumes.bind_mounts(&pod, first_container(&pod), &who(path)).await;
        let error = mounts.expect_err(path).to_string();
        assert!(error.ends_with("it leaves the volume"), "{path}: {error}");
    }
    // The last part of the path may be a link as well.
    std::fs::create_dir(dir.volume().join("last")).expect("a directory");
    std::os::unix::fs::symlink(outside.path(), dir.volume().join("last/logs")).expect("a link");
    assert!(volumes.bind_mounts(&pod, first_container(&pod), &who("last")).await.is_err());
    assert_eq!(std::fs::read_dir(outside.path()).expect("the path exists").count(), 0, "nothing was made outside");
    assert_eq!(mode(outside.path()), 0o700, "nothing was opened to others");
    // Links that stay inside the volume are followed.
    std::fs::create_dir_all(dir.volume().join("real/logs")).expect("a directory");
    std::os::unix::fs::symlink("real", dir.volume().join("inner")).expect("a link");
    volumes.bind_mounts(&pod, first_container(&pod), &who("inner")).await.expect("it stays inside");
}

#[tokio::test]
async fn a_link_swapped_in_after_the_check_is_not_mounted() {
    if !mounting() {
        return;
    }
    let (dir, outside) = (Data::new(), tempfile::tempdir().expect("a temporary directory"));
    std::fs::write(outside.path().join("secret"), "of the host").expect("a file");
    let (root, place) = (dir.path().join("volume"), dir.path().join("place/0"));
    std::fs::create_dir_all(root.join("a/b")).expect("a directory");
    let found = sub_path::find(&root, "a/b", true).expect("it is inside");
    std::fs::rename(root.join("a"), root.join("aside")).expect("moved");
    std::fs::create_dir(root.join("a")).expect("a directory");
    std::os::unix::fs::symlink(outside.path(), root.join("a/b")).expect("a link");
    sub_path::bind(&found, &place).expect("the found directory is mounted");
    assert_eq!(std::fs::read_dir(&place).expect("it is mounted").count(), 0, "nothing of the host is seen");
    std::fs::write(place.join("mine"), "").expect("a file");
    assert!(root.join("aside/b/mine").exists() && !outside.path().join("mine").exists());
}

#[tokio::test]
async fn continuously_swapped_links_never_reach_outside() {
    if !mounting() {
        return;
    }
    let (dir, outside) = (Data::new(), tempfile::tempdir().expect("a temporary directory"));
    let (root, place) = (dir.path().join("volume"), dir.path().join("place/0"));
    std::fs::create_dir(&root).expect("a directory");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let attacker = {
        let (stop, root, outside) = (stop.clone(), root.clone(), outside.path().to_owned());
        std::thread::spawn(move || {
            std::os::unix::fs::symlink(outside, root.join("link")).expect("a link");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // The directory and the link are swapped.
                for (from, to) in [("a", "aside"), ("link", "a"), ("a", "link"), ("aside", "a")] {
                    drop(std::fs::rename(root.join(from), root.join(to)));
                }
                drop(std::fs::remove_dir_all(root.join("a")));
            }
        })
    };
    for _ in 0..300 {
        if let Ok(found) = sub_path::find(&root, "a/new", true) {
            drop(sub_path::bind(&found, &place));
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    attacker.join().expect("the attacker ends");
    assert_eq!(std::fs::read_dir(outside.path()).expect("the path exists").count(), 0);
}

#[tokio::test]
async fn an_agent_that_may_not_mount_refuses_unsafe_volumes() {
    let dir = Data::new();
    let volumes = powerless(dir.path());
    let pod = empty_dir_pod();
    prepare_with(&volumes, &pod, &Referenced::default()).await.expect("a volume on disk takes no mount");
    let refused = volumes.bind_mounts(&pod, first_container(&pod), &who("me")).await.expect_err("subPath does");
    assert!(refused.to_string().ends_with("cannot mount a subPath of it safely"), "{refused}");
    assert!(!dir.volume().join("me").exists());
    let memory = self::pod(json!([{ "name": "v", "emptyDir": { "medium": "Memory" } }]));
    let refused = prepare_with(&powerless(Data::new().path()), &memory, &Referenced::default()).await;
    assert!(refused.expect_err("so does memory").ends_with("cannot make a volume in memory"));
    // No container can write to a volume whose content the agent writes.
    let dir = Data::new();
    let volumes = powerless(dir.path());
    let projected = self::pod(json!([{ "name": "v", "projected": { "sources": [
        { "configMap": { "name": "settings", "items": [{ "key": "a", "path": "me/logs" }] } } ] } }]));
    prepare_with(&volumes, &projected, &settings(json!({ "a": "1" }))).await.expect("it lies on disk");
    let mounts = volumes.bind_mounts(&projected, first_container(&projected), &who("me")).await.expect("mounts");
    assert_eq!(std::fs::read_to_string(&mounts[1].source).expect("the file"), "1");
}

#[tokio::test]
async fn memory_volumes_and_secrets_lie_in_memory_even_after_a_reboot() {
    if !mounting() {
        return;
    }
    let secret = json!({ "metadata": { "name": "keys" }, "data": { "token": "czNjcmV0" } });
    let secrets = [("keys".to_owned(), serde_json::from_value(secret).expect("a secret"))].into();
    let objects = Referenced { secrets, ..Referenced::default() };
    let downward = json!([{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }]);
    let kinds = [
        ("emptyDir", json!({ "medium": "Memory", "sizeLimit": "1Mi" }), None),
        ("secret", json!({ "secretName": "keys" }), Some("token")),
        ("projected", json!({ "sources": [{ "secret": { "name": "keys" } }] }), Some("token")),
        ("downwardAPI", json!({ "items": downward }), Some("labels")),
    ];
    for (kind, source, file) in kinds {
        let dir = Data::new();
        let pod = pod(json!([{ "name": "v", (kind): source }]));
        // A plain directory, which a failed mount or a reboot leaves behind.
        std::fs::create_dir_all(dir.volume()).expect("a directory");
        for _ in 0..2 {
            prepare_in(dir.path(), &pod, &objects).await.expect(kind);
            assert!(mounts::is_tmpfs(&dir.volume()).expect("the file system can be read"), "{kind}");
            assert_eq!(mounts::below(dir.path()).expect("mounts").len(), 1, "{kind} is mounted once");
            assert!(file.is_none_or(|file| dir.volume().join(file).exists()), "{kind}");
        }
        mounts::unmount_below(dir.path()).expect("as a reboot does it");
        assert_eq!(std::fs::read_dir(dir.volume()).expect("the directory").count(), 0, "{kind}: nothing is on disk");
        prepare_in(dir.path(), &pod, &objects).await.expect(kind);
        assert!(mounts::is_tmpfs(&dir.volume()).expect("the file system can be read"), "{kind}");
        clean_up(dir.path(), "u1").await.expect("cleaned up");
    }
}

#[tokio::test]
async fn incomplete_empty_directories_are_made_again() {
    let dir = Data::new();
    let pod = empty_dir_pod();
    // An agent died before it had set the mode.
    let half = dir.volume().with_file_name("..v");
    std::fs::create_dir_all(half.join("left")).expect("a directory");
    prepare_in(dir.path(), &pod, &Referenced::default()).await.expect("prepared");
    assert_eq!(mode(&dir.volume()), 0o777);
    assert!(!half.exists() && !dir.volume().join("left").exists());
    // Changes of a container stay.
    std::fs::set_permissions(dir.volume(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    std::fs::write(dir.volume().join("file"), "").expect("a file");
    prepare_in(dir.path(), &pod, &Referenced::default()).await.expect("prepared");
    assert!(mode(&dir.volume()) == 0o700 && dir.volume().join("file").exists());
}

#[tokio::test]
async fn incomplete_content_is_completed() {
    let dir = Data::new();
    let pod = pod(json!([{ "name": "v", "configMap": { "name": "settings" } }]));
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "1", "b": "2" }))).await.expect("prepared");
    // One agent died before it had made all links, another before its files were shown.
    std::fs::remove_file(dir.volume().join("a")).expect("the link was there");
    std::fs::create_dir(dir.volume().join("..0123456789abcdef")).expect("a directory");
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "1", "b": "2" }))).await.expect("prepared");
    assert_eq!(std::fs::read_to_string(dir.volume().join("a")).expect("a"), "1");
    prepare_in(dir.path(), &pod, &settings(json!({ "a": "one" }))).await.expect("prepared");
    let kept: Vec<_> = std::fs::read_dir(dir.volume()).expect("the volume").collect();
    assert_eq!(kept.len(), 3, "one file, the current generation and the link to it: {kept:?}");
}

#[tokio::test]
async fn clean_up_does_not_reach_through_mounts() {
    if !mounting() {
        return;
    }
    let (dir, outside) = (Data::new(), tempfile::tempdir().expect("a temporary directory"));
    std::fs::create_dir(outside.path().join("logs")).expect("a directory");
    std::fs::write(outside.path().join("logs/keep"), "").expect("a file");
    let pod = pod(json!([{ "name": "v", "hostPath": { "path": outside.path() } }]));
    let volumes = Volumes::new(dir.path());
    prepare_with(&volumes, &pod, &Referenced::default()).await.expect("prepared");
    let mounts = volumes.bind_mounts(&pod, first_container(&pod), &who(".")).await.expect("mounts");
    assert!(mounts[1].source.join("keep").exists());
    // The path of the data directory may contain a link.
    let link = outside.path().join("data");
    std::os::unix::fs::symlink(dir.path(), &link).expect("a link");
    clean_up(&link, "u1").await.expect("cleaned up");
    assert!(outside.path().join("logs/keep").exists());
}
