//! The volumes of a pod.

use serde_json::Value;

use super::{field, items, line, scalar, text};

pub fn describe(out: &mut String, level: usize, volumes: &Value) {
    if items(volumes).next().is_none() {
        field(out, level, "Volumes", "<none>");
        return;
    }
    line(out, level, "Volumes:");
    for volume in items(volumes) {
        // Inside a template, kubectl indents only names, by a single blank.
        let indent = if level > 0 { " " } else { "" };
        line(out, 1, &format!("{indent}{}:", text(&volume["name"])));
        source(out, 2, volume);
    }
}

fn source(out: &mut String, level: usize, volume: &Value) {
    let optional = |source: &Value| source["optional"].as_bool().unwrap_or(false);
    if let Some(directory) = volume.get("emptyDir") {
        field(out, level, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        field(out, level, "Medium", text(&directory["medium"]));
        let limit = Some(scalar(&directory["sizeLimit"])).filter(|limit| !limit.is_empty());
        field(out, level, "SizeLimit", limit.unwrap_or_else(|| "<unset>".to_owned()));
    } else if let Some(host) = volume.get("hostPath") {
        field(out, level, "Type", "HostPath (bare host directory volume)");
        field(out, level, "Path", text(&host["path"]));
        field(out, level, "HostPathType", text(&host["type"]));
    } else if let Some(map) = volume.get("configMap") {
        field(out, level, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        field(out, level, "Name", text(&map["name"]));
        field(out, level, "Optional", optional(map));
    } else if let Some(secret) = volume.get("secret") {
        field(out, level, "Type", "Secret (a volume populated by a Secret)");
        field(out, level, "SecretName", text(&secret["secretName"]));
        field(out, level, "Optional", optional(secret));
    } else if let Some(claim) = volume.get("persistentVolumeClaim") {
        field(
            out,
            level,
            "Type",
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        );
        field(out, level, "ClaimName", text(&claim["claimName"]));
        field(out, level, "ReadOnly", claim["readOnly"].as_bool().unwrap_or(false));
    } else if let Some(projected) = volume.get("projected") {
        field(out, level, "Type", "Projected (a volume that contains injected data from multiple sources)");
        for part in items(&projected["sources"]) {
            if let Some(secret) = part.get("secret") {
                field(out, level, "SecretName", text(&secret["name"]));
            } else if let Some(map) = part.get("configMap") {
                field(out, level, "ConfigMapName", text(&map["name"]));
            } else if part.get("downwardAPI").is_some() {
                field(out, level, "DownwardAPI", true);
            } else if let Some(token) = part.get("serviceAccountToken") {
                let seconds = token["expirationSeconds"].as_i64().unwrap_or(3600);
                field(out, level, "TokenExpirationSeconds", seconds);
            }
        }
    } else {
        let kind = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).find(|key| *key != "name");
        field(out, level, "Type", kind.unwrap_or("<unknown>"));
    }
}
