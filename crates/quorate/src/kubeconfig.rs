//! The administrator's kubeconfig: credentials inline, so that the file can be carried elsewhere.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_pki::Pair;
use serde_json::json;

use crate::config::read_pem;

/// Writes a kubeconfig for the first of `servers`; the others stand in an extension that `qctl` reads.
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
    // JSON is YAML; what `kubectl config` writes back will be YAML in its usual form.
    Ok(quorate_pki::write_private(path, format!("{config:#}\n").as_bytes())?)
}
