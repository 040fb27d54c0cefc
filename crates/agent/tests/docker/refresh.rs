//! Volumes that follow changes of their sources.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{IMAGE, Node1, eventually, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn volumes_follow_their_objects_and_the_pods_own_metadata() {
    let Some(node) = Node1::start().await else { return };
    let cluster = &node.cluster;
    cluster.set_config_map("settings", &[("level", "one")]);
    let field = |path: &str, field: &str| json!({ "path": path, "fieldRef": { "fieldPath": field } });
    let pod = cluster.create(
        "shows",
        json!({
            "terminationGracePeriodSeconds": 0,
            "volumes": [
                { "name": "settings", "configMap": { "name": "settings" } },
                { "name": "absent", "configMap": { "name": "absent", "optional": true } },
                { "name": "about", "downwardAPI": { "items": [
                    field("labels", "metadata.labels"), field("note", "metadata.annotations['note']")] } },
            ],
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
                "volumeMounts": [{ "name": "about", "mountPath": "/about" }, { "name": "settings", "mountPath": "/settings" }],
            }],
        }),
    );
    let shows = async |file: &str, text: &str| {
        let path = node.data_dir().join("pods").join(&pod.uid).join("volumes").join(file);
        eventually(file, async || {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            if found == text { Ok(()) } else { Err(found) }
        })
        .await;
    };
    cluster.wait(&pod, "ready", is_ready).await;
    shows("about/labels", "app=\"shows\"").await;
    shows("about/note", "").await;

    cluster.change(&pod, |pod| {
        pod.metadata.labels.get_or_insert_default().insert("tier".to_owned(), "front".to_owned());
        pod.metadata.annotations.get_or_insert_default().insert("note".to_owned(), "hello".to_owned());
    });
    shows("about/labels", "app=\"shows\"\ntier=\"front\"").await;
    shows("about/note", "hello").await;

    // The agent catches up with a change that it could not fetch, without another event of the object.
    shows("settings/level", "one").await;
    cluster.reachable.store(false, Ordering::SeqCst);
    cluster.set_config_map("settings", &[("level", "two")]);
    // Once the second note is shown, the event of the ConfigMap has been handled.
    for note in ["again", "and again"] {
        cluster.change(&pod, |pod| {
            pod.metadata.annotations.get_or_insert_default().insert("note".to_owned(), note.to_owned());
        });
        shows("about/note", note).await;
    }
    shows("settings/level", "one").await;
    cluster.reachable.store(true, Ordering::SeqCst);
    shows("settings/level", "two").await;
    node.finish(&[&pod]).await;
}
