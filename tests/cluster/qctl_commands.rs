//! Output and effect of single `qctl` commands, without `kubectl`. They run one after the other on the cluster of a
//! test in [`qctl`](crate::qctl), in which `web` has two replicas.

use std::collections::BTreeSet;
use std::fs;

use harness::{Cluster, eventually};
use serde_json::{Value, json};

use crate::demo_path::DEPLOYMENT_IMAGE;
use crate::qctl::{json, pod};

/// Checks that a command succeeds and prints one line.
fn says(cluster: &Cluster, args: &[&str], line: &str) {
    assert_eq!(cluster.qctl(args, "").ok(), format!("{line}\n"), "{args:?}");
}

/// Checks that a command fails, prints nothing to standard output, and gives a reason.
fn refuses(cluster: &Cluster, args: &[&str], reason: &str) {
    let refused = cluster.qctl(args, "");
    assert!(!refused.success && refused.stdout.is_empty(), "{args:?}: {refused:?}");
    assert!(refused.stderr.contains(reason), "{args:?}: {refused:?}");
}

/// Returns the value at a path in an object.
fn field(cluster: &Cluster, object: &str, path: &str) -> String {
    cluster.qctl(&["get", object, "-o", &format!("jsonpath={path}")], "").ok()
}

/// Returns the names of the listed objects.
fn names(cluster: &Cluster, kinds: &str, selector: &str) -> String {
    cluster.qctl(&["get", kinds, "-l", selector, "-o", "name"], "").ok()
}

fn items(cluster: &Cluster, kinds: &str, flags: &[&str]) -> Vec<Value> {
    let list = json(cluster, &[&["get", kinds, "-o", "json"][..], flags].concat());
    list["items"].as_array().expect("items").clone()
}

/// Returns one text of each pod that a selector matches.
fn of_pods(cluster: &Cluster, selector: &str, text: fn(&Value) -> &Value) -> BTreeSet<String> {
    let pods = items(cluster, "pods", &["-l", selector]);
    pods.iter().map(|pod| text(pod).as_str().unwrap_or_default().to_owned()).collect()
}

fn uids(cluster: &Cluster, selector: &str) -> BTreeSet<String> {
    of_pods(cluster, selector, |pod| &pod["metadata"]["uid"])
}

fn images(cluster: &Cluster) -> BTreeSet<String> {
    of_pods(cluster, "app=web", |pod| &pod["spec"]["containers"][0]["image"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Splits the lines of a table into words, without empty lines.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|row| !row.is_empty()).collect()
}

pub fn objects_of_all_namespaces_are_listed(cluster: &Cluster) {
    says(cluster, &["create", "namespace", "team"], "namespace/team created");
    let created = cluster.qctl(&["-n", "team", "create", "-f", "-"], &pod("other")).ok();
    assert_eq!(created, "pod/other created\n");
    cluster.qctl(&["-n", "team", "wait", "pod/other", "--for=condition=Ready", "--timeout=120s"], "").ok();

    let all = cluster.qctl(&["get", "pods", "-A"], "").ok();
    let table = rows(&all);
    assert_eq!(table[0], ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"], "{all}");
    let shown: BTreeSet<String> = table[1..].iter().map(|row| row[..5].join(" ")).collect();
    let line = |pod: &Value| {
        let metadata = &pod["metadata"];
        format!("{} {} 1/1 Running 0", text(&metadata["namespace"]), text(&metadata["name"]))
    };
    let expected: BTreeSet<String> = items(cluster, "pods", &["-A"]).iter().map(line).collect();
    assert!(expected.len() == 3 && expected.contains("team other 1/1 Running 0"), "{expected:?}");
    assert_eq!(shown, expected);
    assert!(!cluster.qctl(&["get", "pods"], "").ok().contains("other"), "other namespaces are not listed");

    let events = eventually("events of both namespaces", || {
        let events = cluster.qctl(&["events", "-A"], "").ok();
        let is_there = |namespace: &str, parts: &[&str]| {
            events.lines().any(|line| line.starts_with(namespace) && parts.iter().all(|part| line.contains(*part)))
        };
        let assigned = "Successfully assigned team/other to worker-1";
        if is_there("team ", &["Normal", "Scheduled", "Pod/other", assigned])
            && is_there("default ", &["Normal", "ScalingReplicaSet", "Deployment/web", "Scaled up replica set web-"])
        {
            Ok(events)
        } else {
            Err(events)
        }
    });
    assert_eq!(rows(&events)[0], ["NAMESPACE", "LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], "{events}");
    let own = cluster.qctl(&["events"], "").ok();
    assert!(own.starts_with("LAST SEEN") && own.contains("Deployment/web") && !own.contains("Pod/other"), "{own}");
}

pub fn objects_are_printed_in_every_format(cluster: &Cluster) {
    let wide = cluster.qctl(&["get", "pods", "-o", "wide"], "").ok();
    let table = rows(&wide);
    assert!(wide.lines().next().is_some_and(|line| line.ends_with("NOMINATED NODE   READINESS GATES")), "{wide}");
    let pods = items(cluster, "pods", &[]);
    assert_eq!((table.len(), pods.len()), (3, 2), "{wide}");
    for pod in &pods {
        let row = table.iter().find(|row| row[0] == text(&pod["metadata"]["name"])).expect("a row of the pod");
        assert_eq!(row[1..4], ["1/1", "Running", "0"], "{wide}");
        assert_eq!(row[5..], [text(&pod["status"]["podIP"]), "worker-1", "<none>", "<none>"], "{wide}");
    }
    let wide = cluster.qctl(&["get", "deployment", "web", "-o", "wide"], "").ok();
    let row = &rows(&wide)[1];
    assert_eq!(row[..4], ["web", "2/2", "2", "2"], "{wide}");
    assert_eq!(row[5..], ["httpd", DEPLOYMENT_IMAGE, "app=web"], "{wide}");

    let names = cluster.qctl(&["get", "deploy/web", "cm/web", "secret/web", "-o", "name"], "").ok();
    assert_eq!(names, "deployment.apps/web\nconfigmap/web\nsecret/web\n");

    // The YAML has the same content as the JSON.
    let yaml = cluster.qctl(&["get", "cm", "web", "-o", "yaml"], "").ok();
    for part in
        ["apiVersion: v1\n", "\nkind: ConfigMap\n", "\n  index.html: |\n    <!doctype html>\n", "\n  name: web\n"]
    {
        assert!(yaml.contains(part), "{part:?} is missing in {yaml}");
    }
    let read = cluster.qctl(&["create", "-f", "-", "--dry-run=client", "-o", "json"], &yaml).ok();
    let read: Value = serde_json::from_str(&read).expect("JSON");
    assert_eq!(read, json(cluster, &["get", "cm", "web", "-o", "json"]));
}

pub fn labels_and_annotations_are_set_and_removed(cluster: &Cluster) {
    let web = "deployment/web";
    let tier = || field(cluster, web, "{.metadata.labels.tier}");
    says(cluster, &["label", web, "tier=front"], "deployment.apps/web labeled");
    assert_eq!(tier(), "front");
    says(cluster, &["label", web, "tier=front"], "deployment.apps/web not labeled");
    let reason = "error: 'tier' already has a value (front), and --overwrite is false";
    refuses(cluster, &["label", web, "tier=back"], reason);
    assert_eq!(tier(), "front");
    says(cluster, &["label", web, "tier=back", "--overwrite"], "deployment.apps/web labeled");
    assert_eq!(names(cluster, "deploy", "tier=back"), "deployment.apps/web\n");
    says(cluster, &["label", web, "tier-"], "deployment.apps/web unlabeled");
    assert_eq!(tier(), "");

    let pods = names(cluster, "pods", "app=web");
    assert_eq!(pods.lines().count(), 2, "{pods}");
    let output = cluster.qctl(&["label", "pods", "-l", "app=web", "seen=yes"], "").ok();
    assert_eq!(output, pods.replace('\n', " labeled\n"));
    assert_eq!(names(cluster, "pods", "seen=yes"), pods);

    let note = || field(cluster, web, "{.metadata.annotations.note}");
    says(cluster, &["annotate", web, "note=kept"], "deployment.apps/web annotated");
    assert_eq!(note(), "kept");
    let reason = "error: --overwrite is false but found the following declared annotation(s): 'note' already has a value \
                  (kept)";
    refuses(cluster, &["annotate", web, "note=lost"], reason);
    says(cluster, &["annotate", web, "note=new", "--overwrite"], "deployment.apps/web annotated");
    assert_eq!(note(), "new");
    says(cluster, &["annotate", web, "note-"], "deployment.apps/web annotated");
    assert_eq!(note(), "");
}

pub fn objects_are_created_from_flags(cluster: &Cluster) {
    let file = cluster.dir().join("entry.txt");
    fs::write(&file, "from a file\n").expect("a file");
    let from_file = format!("--from-file={}", file.display());
    let map = ["create", "configmap", "made", "--from-literal=a=1", from_file.as_str()];
    says(cluster, &map, "configmap/made created");
    let made = json(cluster, &["get", "configmap", "made", "-o", "json"]);
    assert_eq!(made["data"], json!({"a": "1", "entry.txt": "from a file\n"}));
    refuses(cluster, &map, "error: failed to create configmap: configmaps \"made\" already exists");

    let secret = ["create", "secret", "generic", "made", "--from-literal=key=value"];
    says(cluster, &secret, "secret/made created");
    let made = json(cluster, &["get", "secret", "made", "-o", "json"]);
    assert_eq!((&made["type"], &made["data"]), (&json!("Opaque"), &json!({"key": "dmFsdWU="})));
    refuses(cluster, &secret, "secrets \"made\" already exists");

    let flags = ["--image=team/x:1", "--replicas=2", "--port=80", "--", "sleep", "1"];
    let deployment = [&["create", "deployment", "made"][..], &flags[..]].concat();
    says(cluster, &deployment, "deployment.apps/made created");
    let spec = &json(cluster, &["get", "deployment", "made", "-o", "json"])["spec"];
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!((&spec["replicas"], &container["name"]), (&json!(2), &json!("x")));
    assert_eq!((&container["image"], &container["command"]), (&json!("team/x:1"), &json!(["sleep", "1"])));
    assert_eq!(container["ports"][0]["containerPort"], 80);
    is_rolled_out(cluster, "made");
    assert_eq!(uids(cluster, "app=made").len(), 2);
    refuses(cluster, &deployment, "error: failed to create deployment: deployments.apps \"made\" already exists");

    for (dry_run, mark) in [("client", "dry run"), ("server", "server dry run")] {
        let flag = format!("--dry-run={dry_run}");
        let never = ["create", "configmap", "never", "--from-literal=a=1", flag.as_str()];
        says(cluster, &never, &format!("configmap/never created ({mark})"));
        refuses(cluster, &["get", "configmap", "never"], "configmaps \"never\" not found");
    }
}

fn is_rolled_out(cluster: &Cluster, name: &str) {
    let deployment = format!("deployment/{name}");
    let output = cluster.qctl(&["rollout", "status", &deployment, "--timeout=120s"], "").ok();
    assert!(output.ends_with(&format!("deployment \"{name}\" successfully rolled out\n")), "{output}");
}

/// Returns the revisions of `web`, each with its cause.
fn history(cluster: &Cluster) -> Vec<String> {
    let output = cluster.qctl(&["rollout", "history", "deployment/web"], "").ok();
    let lines: Vec<String> = rows(&output).iter().map(|row| row.join(" ")).collect();
    assert_eq!(lines[..2], ["deployment.apps/web", "REVISION CHANGE-CAUSE"], "{output}");
    lines[2..].to_vec()
}

/// Waits until all pods of `web` have this image.
fn only_run(cluster: &Cluster, image: &str) {
    eventually("pods of one image", || {
        let images = images(cluster);
        if images == BTreeSet::from([image.to_owned()]) { Ok(()) } else { Err(images) }
    });
}

pub fn rollouts_are_listed_restarted_paused_and_undone(cluster: &Cluster) {
    let web = "deployment/web";
    assert_eq!(history(cluster), ["1 <none>"]);
    says(cluster, &["annotate", web, "kubernetes.io/change-cause=the start"], "deployment.apps/web annotated");
    eventually("the cause of the first revision", || {
        let history = history(cluster);
        if history == ["1 the start"] { Ok(()) } else { Err(history) }
    });

    let before = uids(cluster, "app=web");
    says(cluster, &["rollout", "restart", web], "deployment.apps/web restarted");
    is_rolled_out(cluster, "web");
    eventually("all pods to be replaced", || {
        let now = uids(cluster, "app=web");
        if now.len() == 2 && now.is_disjoint(&before) { Ok(()) } else { Err(now) }
    });
    assert_eq!(history(cluster), ["1 the start", "2 the start"]);
    for (revision, restarted) in [("1", false), ("2", true)] {
        let output = cluster.qctl(&["rollout", "history", web, &format!("--revision={revision}")], "").ok();
        assert!(output.starts_with(&format!("deployment.apps/web with revision #{revision}\n")), "{output}");
        assert!(output.contains(DEPLOYMENT_IMAGE), "{output}");
        assert_eq!(output.contains("kubectl.kubernetes.io/restartedAt"), restarted, "{output}");
    }
    refuses(cluster, &["rollout", "history", web, "--revision=9"], "error: unable to find the specified revision");

    says(cluster, &["rollout", "pause", web], "deployment.apps/web paused");
    assert_eq!(field(cluster, web, "{.spec.paused}"), "true");
    refuses(cluster, &["rollout", "pause", web], "error: deployments.apps \"web\" is already paused");
    refuses(cluster, &["rollout", "restart", web], "can't restart paused deployment");
    says(cluster, &["set", "image", web, "httpd=x:2"], "deployment.apps/web image updated");
    eventually("the controller to see the image", || {
        let output = field(cluster, web, "{.metadata.generation} {.status.observedGeneration}");
        if output.split_once(' ').is_some_and(|(asked, seen)| asked == seen) { Ok(()) } else { Err(output) }
    });
    // A ReplicaSet is created before the status is written, so a new revision would exist by now.
    assert_eq!(history(cluster).len(), 2);
    assert_eq!(images(cluster), BTreeSet::from([DEPLOYMENT_IMAGE.to_owned()]));

    says(cluster, &["rollout", "resume", web], "deployment.apps/web resumed");
    refuses(cluster, &["rollout", "resume", web], "error: deployments.apps \"web\" is not paused");
    is_rolled_out(cluster, "web");
    only_run(cluster, "x:2");
    assert_eq!(history(cluster), ["1 the start", "2 the start", "3 the start"]);

    says(cluster, &["rollout", "undo", web, "--to-revision=1"], "deployment.apps/web rolled back");
    is_rolled_out(cluster, "web");
    only_run(cluster, DEPLOYMENT_IMAGE);
    assert_eq!(history(cluster), ["2 the start", "3 the start", "4 the start"]);
}

/// Checks cascading deletion; it deletes `made` and `web`.
pub fn deletion_cascades_or_orphans(cluster: &Cluster) {
    let pods = uids(cluster, "app=made");
    let orphan = ["delete", "deployment", "made", "--cascade=orphan", "--timeout=120s"];
    says(cluster, &orphan, "deployment.apps \"made\" deleted");
    refuses(cluster, &["get", "deployment", "made"], "deployments.apps \"made\" not found");
    let sets = items(cluster, "rs", &["-l", "app=made"]);
    assert_eq!(sets.len(), 1, "{sets:?}");
    assert!(sets[0]["metadata"]["ownerReferences"].is_null(), "{sets:?}");
    assert_eq!(uids(cluster, "app=made"), pods);

    // An object is gone only after all objects that it owns.
    let set = text(&sets[0]["metadata"]["name"]);
    let foreground = ["--cascade=foreground", "--timeout=120s"];
    let line = format!("replicaset.apps \"{set}\" deleted");
    says(cluster, &[&["delete", "rs", set][..], &foreground[..]].concat(), &line);
    assert_eq!(names(cluster, "rs,pods", "app=made"), "");
    let web = [&["delete", "deployment", "web"][..], &foreground[..]].concat();
    says(cluster, &web, "deployment.apps \"web\" deleted");
    assert_eq!(names(cluster, "rs,pods", "app=web"), "");
}
