//! The quality of service class of a pod, which follows from its requests and limits.

use quorate_api::Quantity;
use serde_json::Value;

use crate::value::items;

/// `Guaranteed`: cpu and memory limited everywhere and requests equal to limits; `BestEffort`: neither anywhere.
pub fn class(spec: &Value) -> &'static str {
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok()).filter(|q| !q.is_zero());
    let (mut any, mut guaranteed) = (false, true);
    for container in items(&spec["initContainers"]).iter().chain(items(&spec["containers"])) {
        for resource in ["cpu", "memory"] {
            let request = amount(&container["resources"]["requests"][resource]);
            let limit = amount(&container["resources"]["limits"][resource]);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.or(limit) == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn follows_requests_and_limits() {
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
