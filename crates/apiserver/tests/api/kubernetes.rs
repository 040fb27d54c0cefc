//! Compares discovery with Kubernetes' own. The plain documents of v1.36 are checked in; the others lie beside the
//! repository in `../shared/k8s`, and without it their comparison is skipped.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use xtask::{read_json, reference};

use crate::harness::{Client, Server};

const CHECKED_IN: &str = include_str!("../../../registry/testdata/discovery.json");
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Stable resources of Kubernetes v1.36 that are not served.
const NOT_SERVED: &[(&str, &[&str])] = &[("v1", &["serviceaccounts/token"])];

fn is_stable(version: &str) -> bool {
    !version.contains("alpha") && !version.contains("beta")
}

fn is_served(group_version: &str, resource: &str) -> bool {
    !NOT_SERVED.iter().any(|(other, resources)| *other == group_version && resources.contains(&resource))
}

/// Returns a list's elements.
fn elements(list: &Value) -> &[Value] {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}"))
}

/// Checks the document of each stable version against Kubernetes' resources, by group and version.
async fn check_versions(admin: &Client, kubernetes: &Map<String, Value>) {
    let mut left: BTreeSet<(&str, &str)> =
        NOT_SERVED.iter().flat_map(|(group_version, names)| names.iter().map(|name| (*group_version, *name))).collect();
    let mut count = 0;
    for (group_version, resources) in kubernetes.iter().filter(|(group_version, _)| is_stable(group_version)) {
        let mut expected = Vec::new();
        for resource in elements(resources) {
            let mut resource = resource.clone();
            let name = text(&resource, "name").to_owned();
            left.retain(|left| *left != (group_version.as_str(), name.as_str()));
            // The hash tells clients only whether two versions share their storage.
            resource.as_object_mut().expect("a resource").remove("storageVersionHash");
            expected.extend(is_served(group_version, &name).then_some(resource));
        }
        count += expected.len();
        let path = if group_version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{group_version}") };
        let answer = admin.get(&path).await;
        if expected.is_empty() {
            assert_eq!(answer.code, 404, "{path}");
            continue;
        }
        let ours = answer.expect(200);
        assert_eq!((text(&ours, "kind"), text(&ours, "groupVersion")), ("APIResourceList", group_version.as_str()));
        for (mine, theirs) in elements(&ours["resources"]).iter().zip(&expected) {
            assert_eq!(mine, theirs, "{path}");
        }
        assert_eq!(elements(&ours["resources"]).len(), expected.len(), "{path}");
    }
    assert_eq!(left, BTreeSet::new(), "these are not resources of Kubernetes");
    assert!(count > 90, "{count} resources and subresources");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resources_of_each_stable_version_are_those_of_kubernetes() {
    let server = Server::start().await;
    let kubernetes: Map<String, Value> = serde_json::from_str(CHECKED_IN).expect("JSON");
    check_versions(&server.admin(), &kubernetes).await;
}

/// Returns the versions of a group that are stable and have a served resource.
fn served_versions(group: &str, versions: &Value, name: &str, known: &Map<String, Value>) -> Vec<Value> {
    let is_kept = |version: &&Value| {
        let group_version = format!("{group}/{}", text(version, name));
        let resources = known.get(&group_version).map(elements).unwrap_or_default();
        is_stable(&group_version) && resources.iter().any(|row| is_served(&group_version, text(row, "name")))
    };
    elements(versions).iter().filter(is_kept).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_those_of_kubernetes_in_its_order() {
    let Some(folder) = reference().map(|folder| folder.join("discovery")) else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let known: Map<String, Value> = serde_json::from_str(CHECKED_IN).expect("JSON");

    let ours = admin.get("/apis").await.expect(200);
    let mut expected = read_json(&folder.join("apis.json"));
    let groups = expected["groups"].as_array_mut().expect("groups");
    for group in groups.iter_mut() {
        let versions = served_versions(text(group, "name"), &group["versions"], "version", &known);
        group["preferredVersion"] = versions.first().cloned().unwrap_or_default();
        group["versions"] = versions.into();
    }
    groups.retain(|group| !elements(&group["versions"]).is_empty());
    assert!(groups.len() > 15, "{} groups", groups.len());
    assert_eq!(ours, expected);

    let ours = admin.get_as("/apis", AGGREGATED).await.expect(200);
    let mut expected = read_json(&folder.join("aggregated_v2.json"));
    let groups = expected["items"].as_array_mut().expect("groups");
    for group in groups.iter_mut() {
        let name = text(&group["metadata"], "name").to_owned();
        let mut versions = served_versions(&name, &group["versions"], "version", &known);
        for version in &mut versions {
            let group_version = format!("{name}/{}", text(version, "version"));
            for resource in version["resources"].as_array_mut().expect("resources") {
                let own = text(resource, "resource").to_owned();
                if let Some(subresources) = resource.get_mut("subresources").and_then(Value::as_array_mut) {
                    subresources
                        .retain(|sub| is_served(&group_version, &format!("{own}/{}", text(sub, "subresource"))));
                }
            }
        }
        group["versions"] = versions.into();
    }
    groups.retain(|group| !elements(&group["versions"]).is_empty());
    // Kubernetes writes no creation time here; ours is null.
    let mut ours = elements(&ours["items"]).to_vec();
    for group in &mut ours {
        group["metadata"].as_object_mut().expect("metadata").remove("creationTimestamp");
    }
    for (mine, theirs) in ours.iter().zip(&*groups) {
        assert_eq!(mine, theirs);
    }
    assert_eq!(ours.len(), groups.len());
}
