//! A local registry with the few endpoints that Docker needs to pull an image of one layer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::busybox;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Default)]
struct Content {
    /// Manifests by tag and by digest.
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// A registry. Dropping it stops the server and removes the images that were pulled from it.
pub struct Registry {
    address: SocketAddr,
    /// Ids of the published images.
    images: Mutex<Vec<String>>,
    content: Arc<Content>,
    server: tokio::task::JoinHandle<()>,
}

impl Registry {
    pub async fn start() -> Self {
        let content = Arc::<Content>::default();
        let routes = Router::new()
            .route("/v2/", get(async || StatusCode::OK))
            .route("/v2/{name}/manifests/{reference}", get(manifest))
            .route("/v2/{name}/blobs/{digest}", get(blob))
            .with_state(content.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("the registry serves") });
        Registry { address, images: Mutex::default(), content, server }
    }

    /// Returns the reference of an image of this registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Publishes an image with `version` in its environment under a tag, and returns the image's id.
    pub fn publish(&self, tag: &str, version: &str) -> String {
        let layer = busybox();
        let config = json!({
            "architecture": quorate_api::architecture(std::env::consts::ARCH), "os": "linux",
            "config": { "Env": ["PATH=/bin", format!("VERSION={version}")] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let id = digest(&config);
        self.images.lock().push(id.clone());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.store("application/vnd.docker.container.image.v1+json", config),
            "layers": [self.store("application/vnd.docker.image.rootfs.diff.tar", layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut manifests = self.content.manifests.lock();
        manifests.insert(digest(&manifest), manifest.clone());
        manifests.insert(tag.to_owned(), manifest);
        id
    }

    fn store(&self, media_type: &str, blob: Vec<u8>) -> Value {
        let descriptor = json!({ "mediaType": media_type, "size": blob.len(), "digest": digest(&blob) });
        self.content.blobs.lock().insert(digest(&blob), blob);
        descriptor
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
        // Errors are ignored, because images that were never pulled do not exist.
        drop(Command::new("docker").args(["rmi", "-f"]).args(self.images.get_mut().drain(..)).output());
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

async fn manifest(State(content): State<Arc<Content>>, Path((_, reference)): Path<(String, String)>) -> Response {
    let Some(found) = content.manifests.lock().get(&reference).cloned() else {
        let unknown = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] });
        return (StatusCode::NOT_FOUND, axum::Json(unknown)).into_response();
    };
    ([(CONTENT_TYPE.as_str(), MANIFEST.to_owned()), ("docker-content-digest", digest(&found))], found).into_response()
}

async fn blob(State(content): State<Arc<Content>>, Path((_, digest)): Path<(String, String)>) -> Response {
    let found = content.blobs.lock().get(&digest).cloned();
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}
