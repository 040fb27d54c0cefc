//! Computes the files of configMap, secret, downwardAPI and projected volumes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume};

use crate::cluster::ObjectRef;
use crate::env::{self, EnvError, Facts, Referenced};

const DEFAULT_MODE: i32 = 0o644;

/// Why the content of a volume cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("{object} not found")]
    Missing { object: ObjectRef },
    #[error("references non-existent key {key} of {object}")]
    MissingKey { key: String, object: ObjectRef },
    #[error("the path {path} leaves the volume")]
    Path { path: String },
    #[error("{0}")]
    Field(#[source] EnvError),
    #[error("projected sources of this kind are not supported: {kind}")]
    Unsupported { kind: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// One source of a volume's content.
pub(crate) enum Source<'a> {
    Object { object: SourceObject<'a>, items: Option<&'a [KeyToPath]>, optional: bool, mode: i32 },
    Fields { items: &'a [DownwardAPIVolumeFile], mode: i32 },
    Unsupported { kind: &'static str },
}

pub(crate) enum SourceObject<'a> {
    ConfigMap(&'a str),
    Secret(&'a str),
}

impl SourceObject<'_> {
    fn in_namespace(&self, namespace: &str) -> ObjectRef {
        let namespace = namespace.to_owned();
        match self {
            SourceObject::ConfigMap(name) => ObjectRef::ConfigMap { namespace, name: (*name).to_owned() },
            SourceObject::Secret(name) => ObjectRef::Secret { namespace, name: (*name).to_owned() },
        }
    }
}

/// Returns the sources of a volume, or `None` for a volume whose content the agent does not write.
pub(crate) fn sources(volume: &Volume) -> Option<Vec<Source<'_>>> {
    if let Some(source) = &volume.config_map {
        return Some(vec![Source::Object {
            object: SourceObject::ConfigMap(&source.name),
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
        }]);
    }
    if let Some(source) = &volume.secret {
        return Some(vec![Source::Object {
            object: SourceObject::Secret(source.secret_name.as_deref().unwrap_or_default()),
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
        }]);
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return Some(vec![Source::Fields { items: source.items.as_deref().unwrap_or_default(), mode }]);
    }
    let projected = volume.projected.as_ref()?;
    let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
    let mut list = Vec::new();
    for source in projected.sources.iter().flatten() {
        if let Some(source) = &source.config_map {
            list.push(Source::Object {
                object: SourceObject::ConfigMap(&source.name),
                items: source.items.as_deref(),
                optional: source.optional == Some(true),
                mode,
            });
        } else if let Some(source) = &source.secret {
            list.push(Source::Object {
                object: SourceObject::Secret(&source.name),
                items: source.items.as_deref(),
                optional: source.optional == Some(true),
                mode,
            });
        } else if let Some(source) = &source.downward_api {
            list.push(Source::Fields { items: source.items.as_deref().unwrap_or_default(), mode });
        } else if source.service_account_token.is_some() {
            list.push(Source::Unsupported { kind: "serviceAccountToken" });
        } else {
            list.push(Source::Unsupported { kind: "certificates" });
        }
    }
    Some(list)
}

/// Whether the content of a volume is kept in memory. The kubelet does so for all sources but ConfigMaps.
pub(crate) fn lies_in_memory(volume: &Volume) -> bool {
    volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some()
}

/// Returns the objects that a volume shows.
pub(crate) fn references(namespace: &str, volume: &Volume) -> Vec<ObjectRef> {
    let sources = sources(volume).unwrap_or_default();
    let objects = sources.iter().filter_map(|source| match source {
        Source::Object { object, .. } => Some(object.in_namespace(namespace)),
        Source::Fields { .. } | Source::Unsupported { .. } => None,
    });
    objects.collect()
}

/// Whether a volume shows the pod's labels or annotations, which may change.
pub(crate) fn shows_metadata(volume: &Volume) -> bool {
    let changes = |path: &str| path.starts_with("metadata.labels") || path.starts_with("metadata.annotations");
    let shows = |source: &Source<'_>| match source {
        Source::Fields { items, .. } => {
            let mut paths = items.iter().filter_map(|item| item.field_ref.as_ref());
            paths.any(|field| changes(&field.field_path))
        }
        Source::Object { .. } | Source::Unsupported { .. } => false,
    };
    sources(volume).unwrap_or_default().iter().any(shows)
}

/// Returns the files of a volume, by their path inside it.
pub(crate) fn files(
    sources: &[Source<'_>],
    objects: &Referenced,
    facts: Facts<'_>,
) -> Result<BTreeMap<String, File>, PayloadError> {
    let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut files = BTreeMap::new();
    for source in sources {
        match source {
            Source::Object { object, items, optional, mode } => {
                let object = object.in_namespace(namespace);
                match objects.entries(&object) {
                    Some(entries) => files.extend(pick(entries, &object, *items, *optional, *mode)?),
                    None if *optional => {}
                    None => return Err(PayloadError::Missing { object }),
                }
            }
            Source::Fields { items, mode } => {
                for item in *items {
                    let content = field(item, facts)?.into_bytes();
                    files.insert(checked(&item.path)?, File { content, mode: bits(item.mode.unwrap_or(*mode)) });
                }
            }
            Source::Unsupported { kind } => return Err(PayloadError::Unsupported { kind }),
        }
    }
    Ok(files)
}

fn pick(
    mut entries: BTreeMap<String, Vec<u8>>,
    object: &ObjectRef,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Vec<(String, File)>, PayloadError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(entries.into_iter().map(|(key, content)| (key, File { content, mode: bits(mode) })).collect());
    };
    let mut files = Vec::with_capacity(items.len());
    for item in items {
        match entries.remove(&item.key) {
            Some(content) => {
                files.push((checked(&item.path)?, File { content, mode: bits(item.mode.unwrap_or(mode)) }))
            }
            None if optional => {}
            None => return Err(PayloadError::MissingKey { key: item.key.clone(), object: object.clone() }),
        }
    }
    Ok(files)
}

fn field(item: &DownwardAPIVolumeFile, facts: Facts<'_>) -> Result<String, PayloadError> {
    if let Some(selector) = &item.field_ref {
        return env::field(&selector.field_path, facts).map_err(PayloadError::Field);
    }
    let selector = item.resource_field_ref.as_ref();
    let own = selector.and_then(|selector| {
        crate::plan::find_container(facts.pod, selector.container_name.as_deref().unwrap_or_default())
    });
    match (selector, own) {
        (Some(selector), Some((container, _))) => {
            env::resource(&container, selector, facts).map_err(PayloadError::Field)
        }
        _ => Err(PayloadError::Field(EnvError::Source { name: item.path.clone() })),
    }
}

fn checked(path: &str) -> Result<String, PayloadError> {
    let inside =
        !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != ".." && !part.is_empty());
    if inside && !path.starts_with("..") {
        Ok(path.to_owned())
    } else {
        Err(PayloadError::Path { path: path.to_owned() })
    }
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}
