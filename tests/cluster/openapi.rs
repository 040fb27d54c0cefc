//! What `kubectl` learns from OpenAPI: documentation of fields, validation, and whether the server supports dry runs.

use std::path::PathBuf;

use harness::{Cluster, Runtime, Spec, kubectl_is_recent};
use serde_json::{Value, json};

use crate::kubectl::{self, Kubectl};

/// Returns the `kubectl` on PATH, the oldest and the newest of those that are installed beside it under their versions
/// (`kubectl.1.33`), and the newest one that is published.
fn kubectls() -> Vec<PathBuf> {
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.is_file()));
    let Some(on_path) = on_path else { return Vec::new() };
    let folder = std::fs::canonicalize(&on_path).ok().and_then(|file| file.parent().map(PathBuf::from));
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let mut versions: Vec<(u32, PathBuf)> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let minor = path.file_name()?.to_str()?.strip_prefix("kubectl.1.")?.parse().ok()?;
            Some((minor, path))
        })
        .collect();
    versions.sort();
    let mut found = vec![on_path];
    found.extend(versions.first().map(|(_, path)| path.clone()));
    found.extend(versions.last().map(|(_, path)| path.clone()));
    found.dedup();
    found.push(kubectl::newest());
    found
}

/// Returns an object of a kind with what validation asks for at least.
fn minimal(api_version: &str, kind: &str) -> Value {
    let template = json!({
        "metadata": { "labels": { "app": "x" } },
        "spec": { "containers": [{ "name": "main", "image": "x:1" }] },
    });
    let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "sample" } });
    match kind {
        "Pod" => object["spec"] = template["spec"].clone(),
        "Deployment" | "ReplicaSet" => {
            object["spec"] = json!({ "selector": { "matchLabels": { "app": "x" } }, "template": template });
        }
        "Service" => object["spec"] = json!({ "ports": [{ "port": 80 }] }),
        "EndpointSlice" => {
            object["addressType"] = "IPv4".into();
            object["endpoints"] = json!([]);
        }
        _ => {}
    }
    object
}

/// Every kind that can be created, as `(name, apiVersion, kind)`.
fn kinds(kubectl: &Kubectl<'_>) -> Vec<(String, String, String)> {
    let table = kubectl.ok("api-resources --no-headers --verbs=create,get");
    let rows = table.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, .., api_version, _, kind] = words.as_slice() else { panic!("{line}") };
        let group = api_version.rsplit_once('/').map_or_else(String::new, |(group, _)| format!(".{group}"));
        (format!("{name}{group}"), (*api_version).to_owned(), (*kind).to_owned())
    });
    rows.collect()
}

/// Checks each kind. The objects of all kinds go into one call, because a call takes long.
fn check(kubectl: &Kubectl<'_>) {
    let kinds = kinds(kubectl);
    assert!(kinds.len() > 50, "{kinds:?}");
    for (name, api_version, kind) in &kinds {
        // kubectl would take the second part of `events.events.k8s.io` for a field.
        let plural = name.split('.').next().expect("a name");
        let explained = kubectl.ok(&format!("explain {plural} --api-version={api_version} --recursive"));
        assert!(explained.contains(&format!("KIND:       {kind}\n")) && explained.contains("    managedFields\t"));
    }
    let explained = kubectl.ok("explain deployments --recursive");
    assert_eq!(explained, kubectl.ok("explain deployments --api-version=apps/v1 --recursive"));

    let mut objects: Vec<Value> = kinds.iter().map(|(_, version, kind)| minimal(version, kind)).collect();
    let documents = |objects: &[Value]| objects.iter().map(|object| format!("---\n{object}\n")).collect::<String>();
    let program = kubectl.program().display();
    let created = kubectl.given("create --dry-run=client -o name -f -", &documents(&objects));
    let named = created.lines().filter(|line| line.ends_with("/sample")).count();
    assert_eq!(named, kinds.len(), "{program}: {created}");
    let tried = kubectl.run("apply --dry-run=server --validate=strict -f -", &documents(&objects));
    let applied = tried.stdout.lines().filter(|line| line.ends_with(" created (server dry run)")).count();
    let invalid = tried.stderr.matches(" is invalid: ").count();
    assert!(applied > 20 && applied + invalid == kinds.len(), "{program}: {tried:?}");
    for object in &mut objects {
        object["metadata"]["lables"] = json!({});
    }
    let refused = kubectl.run("apply --validate=strict -f -", &documents(&objects));
    let misspelt = refused.stderr.matches("unknown field \"metadata.lables\"").count();
    assert!(!refused.success && refused.stdout.is_empty(), "{program}: {refused:?}");
    assert_eq!(misspelt, kinds.len(), "{program}: {refused:?}");
    let containers = kubectl.ok("explain pod.spec.containers --recursive");
    assert!(
        containers.contains("FIELD: containers <[]Container>\n") && containers.contains("  livenessProbe\t<Probe>\n")
    );
    let update = kubectl.ok("explain deploy.spec.strategy.rollingUpdate");
    assert!(update.contains("  maxSurge\t<IntOrString>\n"), "{update}");
    let missing = kubectl.run("explain pod.spec.nothing", "");
    assert!(!missing.success && missing.stderr.contains("field \"nothing\" does not exist"), "{missing:?}");
}

/// Applies a Deployment twice: kubectl computes a strategic merge patch from the schema's merge keys. The side
/// container that someone else added must stay.
fn merges_lists(kubectl: &Kubectl<'_>, name: &str) {
    let mut object = minimal("apps/v1", "Deployment");
    object["metadata"]["name"] = name.into();
    object["spec"]["replicas"] = 0.into();
    kubectl.given("apply -f -", &object.to_string());
    let side = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"y:1"}]}}}}"#;
    kubectl.ok(&format!("patch deployment {name} -p '{side}'"));
    object["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2".into();
    let changed = kubectl.given("apply -f -", &object.to_string());
    assert_eq!(changed, format!("deployment.apps/{name} configured\n"));
    let path = "jsonpath={range .spec.template.spec.containers[*]}{.name}={.image} {end}";
    let mut images: Vec<String> =
        kubectl.ok(&format!("get deployment {name} -o '{path}'")).split_whitespace().map(str::to_owned).collect();
    images.sort();
    assert_eq!(images, ["main=x:2", "side=y:1"], "{}", kubectl.program().display());
}

#[test]
fn kubectl_explains_validates_and_merges_each_served_kind() {
    if !kubectl_is_recent() {
        return;
    }
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Hollow, flags: vec![] });
    for (index, program) in kubectls().into_iter().enumerate() {
        let kubectl = Kubectl::new(&cluster, program, "default");
        check(&kubectl);
        merges_lists(&kubectl, &format!("merged-{index}"));
    }
}
