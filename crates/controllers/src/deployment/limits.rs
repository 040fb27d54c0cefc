//! The limits on a deployment's pod count during a rollout.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Bounds on the pod count of one deployment at its current size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// Maximum number of pods beyond `replicas` during a rolling update.
    pub(super) max_surge: i32,
    /// Maximum number of unavailable pods during a rolling update.
    pub(super) max_unavailable: i32,
}

impl Limits {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        if is_recreate(deployment) {
            return Limits { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let update = spec.and_then(|spec| spec.strategy.as_ref()).and_then(|strategy| strategy.rolling_update.as_ref());
        let max_surge = resolve(update.and_then(|update| update.max_surge.as_ref()), replicas, Rounding::Up);
        let mut max_unavailable =
            resolve(update.and_then(|update| update.max_unavailable.as_ref()), replicas, Rounding::Down);
        if max_surge == 0 && max_unavailable == 0 {
            // Small percentages can round both limits to zero, and then an update could never start.
            max_unavailable = 1;
        }
        Limits { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    /// Maximum number of pods that may exist.
    pub(super) fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// Minimum number of pods that must be available.
    pub(super) fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

#[derive(Clone, Copy)]
enum Rounding {
    Up,
    Down,
}

/// Resolves an absolute number or a percentage of `total`. An absent value is 25 %, the API's default.
fn resolve(value: Option<&IntOrString>, total: i32, rounding: Rounding) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()),
        None => Some(25),
    };
    // Validation admits no other strings than percentages; any other counts as zero.
    let share = percent.unwrap_or(0).max(0).saturating_mul(i64::from(total));
    let rounded = match rounding {
        Rounding::Up => share.saturating_add(99) / 100,
        Rounding::Down => share / 100,
    };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailable() {
        let table = [
            (json!("25%"), json!("25%"), 10, (3, 2)),
            (json!("25%"), json!("25%"), 4, (1, 1)),
            (json!("25%"), json!("25%"), 3, (1, 0)),
            (json!(0), json!("10%"), 3, (0, 1)),
            (json!(0), json!(0), 5, (0, 1)),
            (json!("0%"), json!("0%"), 0, (0, 0)),
            (json!("100%"), json!("100%"), 7, (7, 7)),
            (json!(2), json!(9), 5, (2, 5)),
            (Value::Null, Value::Null, 10, (3, 2)),
        ];
        for (max_surge, max_unavailable, replicas, expected) in table {
            let deployment: Deployment = serde_json::from_value(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {
                    "replicas": replicas, "selector": {}, "template": {}, "strategy": {"type": "RollingUpdate",
                        "rollingUpdate": {"maxSurge": max_surge, "maxUnavailable": max_unavailable}}}
            }))
            .expect("a deployment");
            let limits = Limits::of(&deployment);
            let case = format!("surge {max_surge}, unavailable {max_unavailable} of {replicas}");
            assert_eq!((limits.max_surge, limits.max_unavailable), expected, "{case}");
        }
    }
}
