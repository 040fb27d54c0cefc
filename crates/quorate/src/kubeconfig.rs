//! The administrator's kubeconfig, with inline credentials, so that the file can be copied to other machines.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_pki::Pair;
use serde_json::json;

use crate::config::read_pem;

/// Writes a kubeconfig for the first of `servers`. An extension that `qctl` reads lists the others.
pub fn write(path: &Path, cluster: &str, servers: &[String], ca: &Path, admin: &Pair) -> anyhow::Result<()> {
    let data = |path: &Path| -> anyhow::Result<String> { Ok(STANDARD.encode(read_pem(path)?)) };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": {
                "server": servers.first(),
                "certificate-authority-data": data(ca)?,
                "extensions": [{"name": "quorate.io/masters", "extension": {"servers": servers}}],
            },
        }],
        "users": [{
            "name": "admin",
            "user": {
                "client-certificate-data": data(&admin.cert)?,
                "client-key-data": data(&admin.key)?,
            },
        }],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": "admin"}}],
        "current-context": cluster,
    });
    // The file is JSON, which is valid YAML. `kubectl config` rewrites it as ordinary YAML.
    Ok(quorate_pki::write_private(path, format!("{config:#}\n").as_bytes())?)
}
