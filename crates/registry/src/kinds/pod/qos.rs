//! The quality of service class of a stored pod.

use quorate_api::qos::{self, Amounts};
use serde_json::Value;

use crate::value::items;

/// Returns the class; see [`qos::class`].
pub fn class(spec: &Value) -> &'static str {
    let containers = items(&spec["initContainers"]).iter().chain(items(&spec["containers"]));
    qos::class(containers.map(|container| {
        let resources = &container["resources"];
        ["cpu", "memory"].map(|name| Amounts {
            request: resources["requests"][name].as_str(),
            limit: resources["limits"][name].as_str(),
        })
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let limited = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
        let requested = json!({"resources": {"requests": {"cpu": "1"}}});
        let lowered = json!({"resources": {
            "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}
        }});
        for (containers, expected) in [
            (json!([{}]), "BestEffort"),
            (json!([limited]), "Guaranteed"),
            (json!([limited, {}]), "Burstable"),
            (json!([requested]), "Burstable"),
            (json!([lowered]), "Burstable"),
        ] {
            assert_eq!(class(&json!({"containers": containers})), expected, "{containers}");
        }
    }
}
