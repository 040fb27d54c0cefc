//! `qctl` commands that need an editor, a stream, a node or a container. `parity` compares the output of the others.

use std::process::Command;

use harness::{Cluster, Lines, Running, Runtime, Spec, eventually, run, tag_image};
use serde_json::Value;

use crate::demo_path::{DEPLOYMENT_IMAGE, TEST_IMAGE, web};
use crate::qctl_commands;

fn hollow(masters: usize, workers: usize) -> Cluster {
    Cluster::start(Spec { masters, workers, runtime: Runtime::Hollow, flags: vec![] })
}

/// Returns the manifest of a pod.
pub fn pod(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: 'x:1'}}]}}}}\n"
    )
}

/// Returns the JSON output of a command.
pub fn json(cluster: &Cluster, args: &[&str]) -> Value {
    serde_json::from_str(&cluster.qctl(args, "").ok()).expect("JSON")
}

#[test]
fn a_watch_shows_existing_objects_and_each_change() {
    let cluster = hollow(1, 1);
    cluster.qctl(&["create", "-f", "-"], &pod("before")).ok();
    let mut table = Lines::start(cluster.qctl_command().args(["get", "pods", "-w"]));
    assert!(table.until("the header", |line| line.starts_with("NAME")).ends_with("AGE"));
    table.until("the existing pod", |line| line.starts_with("before "));
    let kinds = Running::start(cluster.qctl_command().args([
        "get",
        "pods",
        "--watch-only",
        "--output-watch-events",
        "-o",
        "jsonpath={.type} {.object.metadata.name} {.object.status.phase}{\"\\n\"}",
    ]));
    // This watch shows no existing objects, so only a change shows that it has started.
    let mut change = 0;
    eventually("the first change", || {
        change += 1;
        cluster.qctl(&["annotate", "pod", "before", "--overwrite", &format!("change={change}")], "").ok();
        if kinds.lines().is_empty() { Err(change) } else { Ok(()) }
    });

    cluster.qctl(&["create", "-f", "-"], &pod("after")).ok();
    table.until("the change", |line| line.starts_with("after ") && line.contains("Running"));
    kinds.wait_for_part("ADDED after");
    kinds.wait_for(&["MODIFIED after Running"]);
    cluster.qctl(&["delete", "pod", "after", "--now"], "").ok();
    kinds.wait_for_part("DELETED after");
    assert!(kinds.lines().iter().all(|line| !line.starts_with("ADDED before")), "{:?}", kinds.lines());

    let mut events = Lines::start(cluster.qctl_command().args(["events", "--for", "pod/later", "--watch"]));
    cluster.qctl(&["create", "-f", "-"], &pod("later")).ok();
    events.until("the event", |line| line.contains("Scheduled") && line.contains("default/later to worker-1"));
}

#[test]
fn edits_are_saved_refused_or_cancelled() {
    let cluster = hollow(1, 0);
    cluster.qctl(&["create", "configmap", "c", "--from-literal=colour=red"], "").ok();
    let edit = |editor: &str, what: &str| run(cluster.qctl_command().env("EDITOR", editor).args(["edit", what]), "");
    let colour = || cluster.qctl(&["get", "cm", "c", "-o", "jsonpath={.data.colour}"], "").ok();

    assert_eq!(edit("sed -i s/red/green/", "cm/c").ok(), "configmap/c edited\n");
    assert_eq!(colour(), "green");
    let unchanged = edit("true", "cm/c");
    assert!(unchanged.success && unchanged.stderr.contains("Edit cancelled, no changes made."), "{unchanged:?}");
    let emptied = edit("sed -i d", "cm/c");
    assert!(emptied.stderr.contains("Edit cancelled, saved file was empty."), "{emptied:?}");
    let broken = edit("false", "cm/c");
    assert!(!broken.success && broken.stderr.contains("there was a problem with the editor \"false\""), "{broken:?}");

    // The server refuses the edit, the editor opens again with the reason and changes nothing, and the edit is
    // cancelled.
    let refused = edit("sed -i s/colour:/col*our:/", "cm/c");
    assert!(!refused.success, "{refused:?}");
    for part in
        ["The ConfigMap \"c\" is invalid", "A copy of your changes has been stored to", "Edit cancelled, no valid"]
    {
        assert!(refused.stderr.contains(part), "{part} is missing in {}", refused.stderr);
    }
    let copy = refused.stderr.split('"').find(|part| part.starts_with('/')).expect("the path of the copy");
    let kept = std::fs::read_to_string(copy).expect("the copy");
    std::fs::remove_file(copy).expect("the copy can be removed");
    assert!(kept.contains("col*our: green") && kept.contains("# The ConfigMap"), "{kept}");
    assert_eq!(colour(), "green");
    // The user corrects the edit at the second attempt.
    assert_eq!(
        edit("sh -c 'grep -q is.invalid $0 && sed -i s/col.our/color/ $0 || sed -i s/colour:/col*our:/ $0'", "cm/c")
            .ok(),
        "configmap/c edited\n"
    );
    assert_eq!(cluster.qctl(&["get", "cm", "c", "-o", "jsonpath={.data}"], "").ok(), "{\"color\":\"green\"}");
}

#[test]
fn a_node_is_drained_and_takes_pods_again() {
    let cluster = hollow(1, 2);
    cluster.qctl(&["create", "deployment", "web", "--image=x:1", "--replicas=4"], "").ok();
    let on = |node: &str| {
        let pods = json(&cluster, &["get", "pods", "-o", "json"]);
        let running = pods["items"].as_array().expect("items").iter().filter(|pod| {
            pod["spec"]["nodeName"] == node
                && pod["status"]["phase"] == "Running"
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        running.count()
    };
    eventually("pods on both", || {
        let counts = [on("worker-1"), on("worker-2")];
        if counts.iter().sum::<usize>() == 4 && !counts.contains(&0) { Ok(()) } else { Err(counts) }
    });
    let bare = pod("bare").replace("spec: {", "spec: {nodeName: worker-1, ");
    cluster.qctl(&["create", "-f", "-"], &bare).ok();

    let refused = cluster.qctl(&["drain", "worker-1"], "");
    assert!(!refused.success && refused.stdout.contains("node/worker-1 cordoned"), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("cannot delete Pods that declare no controller (use --force to override): default/bare"),
        "{refused:?}"
    );
    let drained = cluster.qctl(&["drain", "worker-1", "--force"], "");
    assert!(drained.stderr.contains("Warning: deleting Pods that declare no controller: default/bare"), "{drained:?}");
    let drained = drained.ok();
    for part in ["evicting pod default/bare", "pod/bare evicted", "node/worker-1 drained"] {
        assert!(drained.contains(part), "{part} is missing in {drained}");
    }
    eventually("all pods on the other node", || {
        let counts = [on("worker-1"), on("worker-2")];
        if counts == [0, 4] { Ok(()) } else { Err(counts) }
    });
    let nodes = cluster.qctl(&["get", "nodes"], "").ok();
    assert!(nodes.lines().any(|l| l.starts_with("worker-1") && l.contains("Ready,SchedulingDisabled")), "{nodes}");

    assert_eq!(cluster.qctl(&["uncordon", "worker-1"], "").ok(), "node/worker-1 uncordoned\n");
    assert_eq!(cluster.qctl(&["uncordon", "worker-1"], "").ok(), "node/worker-1 already uncordoned\n");
    assert_eq!(cluster.qctl(&["cordon", "worker-2"], "").ok(), "node/worker-2 cordoned\n");
    cluster.qctl(&["scale", "deployment/web", "--replicas=6"], "").ok();
    eventually("new pods on the first node again", || {
        let counts = [on("worker-1"), on("worker-2")];
        if counts == [2, 4] { Ok(()) } else { Err(counts) }
    });
}

/// Checks that `version` prints both versions, or only the client's if there is no server.
fn both_versions_are_printed(cluster: &Cluster) {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let (client, server) = (format!("v{VERSION}"), format!("v1.36.0+quorate-{VERSION}"));
    let plain = format!("Client Version: {client}\nServer Version: {server}\n");
    assert_eq!(cluster.qctl(&["version"], "").ok(), plain);
    let served = json(cluster, &["get", "--raw", "/version"]);
    assert_eq!(served["gitVersion"], server.as_str());
    let both = serde_json::json!({ "clientVersion": { "gitVersion": client }, "serverVersion": served });
    assert_eq!(json(cluster, &["version", "-o", "json"]), both);
    let yaml = cluster.qctl(&["version", "-o", "yaml"], "").ok();
    assert!(yaml.starts_with(&format!("clientVersion:\n  gitVersion: {client}\nserverVersion:\n")), "{yaml}");
    assert!(yaml.contains(&format!("\n  gitVersion: {server}\n")), "{yaml}");

    // No process listens on this reserved port.
    let unused = "127.0.0.1:1";
    let unreachable = cluster.qctl(&["version", "--server", &format!("https://{unused}")], "");
    assert!(!unreachable.success, "{unreachable:?}");
    assert_eq!(unreachable.stdout, format!("Client Version: {client}\n"));
    assert!(
        unreachable.stderr.starts_with(&format!("The connection to the server {unused} was refused")),
        "{unreachable:?}"
    );
    let refused = cluster.qctl(&["version", "-o", "wide", "--server", &format!("https://{unused}")], "");
    assert!(!refused.success && refused.stdout.is_empty(), "{refused:?}");
    assert_eq!(refused.stderr, "error: --output must be 'yaml' or 'json'\n");
}

#[test]
fn the_quorum_is_shown_with_its_version_and_its_leader() {
    let cluster = hollow(3, 0);
    both_versions_are_printed(&cluster);
    let leader = cluster.leader_seen_by("master-1");
    let quorum = json(&cluster, &["quorum", "-o", "json"]);
    assert_eq!(quorum["leader"], leader.as_str());
    assert!(quorum["term"].as_u64().is_some_and(|term| term > 0), "{quorum}");
    let members = quorum["members"].as_array().expect("members");
    assert_eq!(
        members.iter().map(|m| m["name"].as_str()).collect::<Vec<_>>(),
        ["master-1", "master-2", "master-3"].map(Some)
    );
    for member in members {
        let role = if member["name"] == leader.as_str() { "leader" } else { "follower" };
        assert_eq!(member["role"], role, "{member}");
        for field in ["appliedIndex", "lag", "databaseSizeBytes", "revision"] {
            assert!(member[field].is_u64(), "{field} is missing in {member}");
        }
    }
    let table = cluster.qctl(&["quorum"], "").ok();
    assert!(table.starts_with("NAME") && table.contains(&format!("leader {leader}, term ")), "{table}");
    assert!(table.contains("3 of 3 members answer, 2 needed"), "{table}");
    assert_eq!(cluster.qctl(&["quorum", "-o", "jsonpath={.leader}"], "").ok(), leader);

    cluster.kill(&leader);
    let survivor = cluster.masters().into_iter().find(|member| member.name != leader).expect("a survivor");
    eventually("a new leader", || {
        let text = cluster.qctl_at(&survivor.name, &["quorum"], "").result()?;
        let new = text.contains("2 of 3 members answer")
            && !text.contains(&format!("leader {leader}, "))
            && !text.contains("no leader");
        if new { Ok(()) } else { Err(harness::Output { success: true, stdout: text, stderr: String::new() }) }
    });
}

/// Checks the flags that select a part of a log. The pod `talks` must have printed at least five lines.
fn logs_start_at_the_requested_line(cluster: &Cluster) {
    let log = |flags: &[&str]| cluster.qctl(&[&["logs", "talks", "-c", "main"][..], flags].concat(), "").ok();
    let recent = log(&["--since=1h"]);
    assert!(recent.starts_with("line 1\nline 2\n"), "{recent}");
    let stamped = log(&["--timestamps"]);
    let mut lines = stamped.lines().filter_map(|line| line.split_once(' '));
    let (time, _) = lines.find(|(_, text)| *text == "line 3").expect("the third line");
    let later = log(&["--since-time", time]);
    assert!(later.starts_with("line 3\nline 4\n"), "{later}");
    assert_eq!(log(&["--since-time=2020-01-01T00:00:00Z", "--limit-bytes=6"]), "line 1");
    assert_eq!(log(&["--since-time=2100-01-01T00:00:00Z"]), "");
    let both = cluster.qctl(&["logs", "talks", "-c", "main", "--since=1h", "--since-time", time], "");
    assert!(!both.success && both.stdout.is_empty() && both.stderr.contains("cannot be used with"), "{both:?}");
}

/// Checks `logs --previous` with a container that ended once.
fn the_log_of_the_previous_run_is_kept(cluster: &Cluster) {
    let script =
        "[ -f /data/again ] && echo the second run && sleep 3600; touch /data/again; echo the first run; exit 1";
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "twice"},
        "spec": {"volumes": [{"name": "data", "emptyDir": {}}], "containers": [
            {"name": "main", "image": DEPLOYMENT_IMAGE, "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        ]},
    });
    cluster.qctl(&["create", "-f", "-"], &manifest.to_string()).ok();
    eventually("its second run", || {
        let pod = json(cluster, &["get", "pod", "twice", "-o", "json"]);
        let container = &pod["status"]["containerStatuses"][0];
        if container["restartCount"] == 1 && container["state"]["running"].is_object() { Ok(()) } else { Err(pod) }
    });
    assert_eq!(cluster.qctl(&["logs", "twice", "--previous"], "").ok(), "the first run\n");
    assert_eq!(
        cluster.qctl(&["logs", "-p", "twice", "-c", "main", "--prefix"], "").ok(),
        "[pod/twice/main] the first run\n"
    );
    eventually("the log of the second run", || {
        let log = cluster.qctl(&["logs", "twice"], "").ok();
        if log == "the second run\n" { Ok(()) } else { Err(log) }
    });
    cluster.qctl(&["delete", "pod", "twice", "--now"], "").ok();
}

#[test]
fn logs_are_followed_to_the_end_of_the_container() {
    tag_image(TEST_IMAGE, DEPLOYMENT_IMAGE);
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Docker, flags: vec![] });
    let script = "i=0; while [ ! -f /tmp/end ]; do i=$((i+1)); echo line $i; sleep 0.2; done; echo the end; exit 3";
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talks"},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "main", "image": DEPLOYMENT_IMAGE, "command": ["sh", "-c", script]},
            {"name": "quiet", "image": DEPLOYMENT_IMAGE, "command": ["sh", "-c", "echo only this; sleep 3600"]},
        ]},
    });
    cluster.qctl(&["create", "-f", "-"], &manifest.to_string()).ok();
    cluster.qctl(&["wait", "pod/talks", "--for=condition=Ready", "--timeout=120s"], "").ok();
    let mut log = Lines::start(cluster.qctl_command().args(["logs", "-f", "talks", "-c", "main"]));
    assert_eq!(log.until("the first line", |_| true), "line 1");
    log.until("new lines", |line| line == "line 5");

    let last = cluster.qctl(&["logs", "talks", "-c", "main", "--tail=1", "--timestamps"], "").ok();
    assert!(last.lines().count() == 1 && last.starts_with("20") && last.contains("Z line "), "{last}");
    let defaulted = cluster.qctl(&["logs", "talks", "--limit-bytes=6"], "");
    assert_eq!(defaulted.stdout, "line 1");
    assert!(defaulted.stderr.contains("Defaulted container \"main\" out of: main, quiet"), "{defaulted:?}");
    let all = cluster.qctl(&["logs", "talks", "--all-containers", "--prefix"], "").ok();
    assert!(all.contains("[pod/talks/main] line 1\n") && all.contains("[pod/talks/quiet] only this\n"), "{all}");
    let unknown = cluster.qctl(&["logs", "talks", "-c", "nobody"], "");
    assert!(unknown.stderr.contains("error: container nobody is not valid for pod talks"), "{unknown:?}");
    let previous = cluster.qctl(&["logs", "talks", "-c", "main", "--previous"], "");
    assert!(
        previous.stderr.contains("previous terminated container \"main\" in pod \"talks\" not found"),
        "{previous:?}"
    );

    logs_start_at_the_requested_line(&cluster);
    the_log_of_the_previous_run_is_kept(&cluster);

    let id =
        cluster.qctl(&["get", "pod", "talks", "-o", "jsonpath={.status.containerStatuses[0].containerID}"], "").ok();
    let id = id.trim().trim_start_matches("docker://").to_owned();
    run(Command::new("docker").args(["exec", &id, "touch", "/tmp/end"]), "").ok();
    log.until("its last line", |line| line == "the end");
    assert!(log.ended(), "following ends with the container");
    cluster.qctl(&["delete", "pod", "talks", "--now"], "").ok();
}

#[test]
fn a_deployment_is_described_listed_changed_rolled_out_and_deleted() {
    let cluster = hollow(1, 1);
    cluster.qctl(&["apply", "-f", "-"], &web(2)).ok();
    cluster.qctl(&["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    let expectations: [(&[&str], &[&str]); 4] = [
        (
            &["describe", "deployment", "web"],
            &[
                "Name: web",
                "Replicas: 2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
                "OldReplicaSets: <none>",
                "ScalingReplicaSet",
                "RollingUpdateStrategy: 1 max unavailable, 2 max surge",
            ],
        ),
        (
            &["describe", "pods", "-l", "app=web"],
            &[
                "Status: Running",
                "Controlled By: ReplicaSet/web-",
                "Readiness: http-get http://:http/",
                "Scheduled",
                "Successfully assigned default/web-",
                "QoS Class: Burstable",
            ],
        ),
        (
            &["describe", "node", "worker-1"],
            &["Kubelet Version:", "Non-terminated Pods: (2 in total)", "Allocatable:", "default web-"],
        ),
        (&["describe", "secret", "web"], &["greeting: 19 bytes"]),
    ];
    for (args, parts) in expectations {
        let text = cluster.qctl(args, "").ok();
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(flat.contains(part), "{args:?}: {part:?} is missing in {text}");
        }
    }
    qctl_commands::objects_of_all_namespaces_are_listed(&cluster);
    qctl_commands::objects_are_printed_in_every_format(&cluster);
    qctl_commands::labels_and_annotations_are_set_and_removed(&cluster);
    qctl_commands::objects_are_created_from_flags(&cluster);
    qctl_commands::rollouts_are_listed_restarted_paused_and_undone(&cluster);
    qctl_commands::deletion_cascades_or_orphans(&cluster);
}
