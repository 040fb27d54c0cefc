//! Discovery: reads the server's kinds from both aggregated documents, and caches them on disk for a while.

use serde::{Deserialize, Serialize};

use super::Resource;
use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::transport::{Call, Transport};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// All resources, in the server's order of groups and of the versions in each group. Earlier ones are preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    pub resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupMetadata,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct GroupMetadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize)]
struct Subresource {
    subresource: String,
}

/// Reads `/api` and `/apis` in their aggregated form, concurrently.
///
/// # Errors
/// When the server cannot be reached or its response is malformed.
pub async fn fetch(transport: &Transport) -> Result<Discovery> {
    let (core, groups) = futures::try_join!(document(transport, "/api"), document(transport, "/apis"))?;
    let resources = core.items.into_iter().chain(groups.items).flat_map(flatten).collect();
    Ok(Discovery { resources })
}

async fn document(transport: &Transport, path: &str) -> Result<GroupList> {
    let bytes = transport.bytes(&Call::get(RequestPath::raw(path)).accept(AGGREGATED)).await?;
    serde_json::from_slice(&bytes).map_err(|error| CliError::Answer(format!("discovery at {path}: {error}")))
}

fn flatten(group: Group) -> impl Iterator<Item = Resource> {
    let name = group.metadata.name;
    group.versions.into_iter().flat_map(move |version| {
        let group = name.clone();
        let number = version.version;
        version.resources.into_iter().filter_map(move |entry| {
            let kind = entry.response_kind?.kind;
            Some(Resource {
                group: group.clone(),
                version: number.clone(),
                singular: if entry.singular_resource.is_empty() {
                    kind.to_lowercase()
                } else {
                    entry.singular_resource
                },
                kind,
                plural: entry.resource,
                short_names: entry.short_names,
                categories: entry.categories,
                namespaced: entry.scope == "Namespaced",
                verbs: entry.verbs,
                subresources: entry.subresources.into_iter().map(|sub| sub.subresource).collect(),
            })
        })
    })
}

pub mod cache {
    //! Cache of discovery on disk, with one file for each server.

    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    use super::Discovery;

    /// Lifetime of a cached discovery. New kinds are rare, and a missing name causes a new request anyway.
    const LIFETIME: Duration = Duration::from_secs(600);

    fn file(directory: &Path, server: &str) -> PathBuf {
        let name: String = server
            .trim_start_matches("https://")
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() || character == '.' { character } else { '_' })
            .collect();
        directory.join("quorate").join(format!("{name}.json"))
    }

    /// Reads the cached discovery, unless it is too old. A damaged file counts as absent.
    #[must_use]
    pub fn read(directory: &Path, server: &str) -> Option<Discovery> {
        let file = file(directory, server);
        let age = SystemTime::now().duration_since(std::fs::metadata(&file).ok()?.modified().ok()?).ok()?;
        if age > LIFETIME {
            return None;
        }
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// Caches discovery for the next command.
    ///
    /// # Errors
    /// When the directory cannot be written. Commands then continue without a cache.
    pub fn write(directory: &Path, server: &str, discovery: &Discovery) -> std::io::Result<()> {
        let file = file(directory, server);
        let parent = file.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent)?;
        let mut temporary = tempfile::NamedTempFile::new_in(parent)?;
        temporary.write_all(&serde_json::to_vec(discovery)?)?;
        temporary.persist(file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_documents_become_resources() {
        let list: GroupList = serde_json::from_value(serde_json::json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                {"resource": "deployments", "responseKind": {"group": "", "version": "", "kind": "Deployment"},
                 "scope": "Namespaced", "singularResource": "deployment", "shortNames": ["deploy"], "categories": ["all"],
                 "verbs": ["get", "list"], "subresources": [{"subresource": "scale", "verbs": ["get"]}]}]}]}]}))
        .expect("a document");
        let resources: Vec<Resource> = list.items.into_iter().flat_map(flatten).collect();
        assert_eq!(resources.len(), 1);
        assert_eq!(resources[0].kind_name(), "deployment.apps");
        assert_eq!(resources[0].api_version(), "apps/v1");
        assert_eq!(resources[0].subresources, ["scale"]);
        assert!(resources[0].namespaced);
    }

    #[test]
    fn the_cache_keeps_servers_apart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let kept = Discovery { resources: vec![Resource::for_test("", "v1", "Pod", "pods", true)] };
        cache::write(directory.path(), "https://h:1", &kept).expect("writable");
        assert_eq!(cache::read(directory.path(), "https://h:1"), Some(kept));
        assert_eq!(cache::read(directory.path(), "https://h:2"), None);
    }
}
