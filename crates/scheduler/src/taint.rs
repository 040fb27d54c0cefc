//! Taints of nodes and the tolerations of pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1;

/// Effect of a taint on pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Effect {
    fn parse(text: &str) -> Option<Effect> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: Arc<str>,
    pub value: Arc<str>,
    pub effect: Effect,
}

impl Taint {
    #[must_use]
    pub fn new(key: &str, value: &str, effect: Effect) -> Taint {
        Taint { key: Arc::from(key), value: Arc::from(value), effect }
    }

    /// Parses a taint; `None` for an unknown effect, which repels no pod.
    #[must_use]
    pub fn parse(taint: &v1::Taint) -> Option<Taint> {
        let effect = Effect::parse(&taint.effect)?;
        Some(Taint::new(&taint.key, taint.value.as_deref().unwrap_or_default(), effect))
    }

    /// Returns the taint that a cordoned node has besides `spec.unschedulable`.
    #[must_use]
    pub fn of_cordon() -> Taint {
        Taint::new("node.kubernetes.io/unschedulable", "", Effect::NoSchedule)
    }

    pub(crate) fn is_of_cordon(&self) -> bool {
        *self == Taint::of_cordon()
    }

    /// Returns whether the taint excludes new pods, rather than only lowering the node's score.
    #[must_use]
    pub fn repels(&self) -> bool {
        self.effect != Effect::PreferNoSchedule
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    /// `None` matches every key (with `Exists`).
    key: Option<String>,
    /// `None` matches every value.
    value: Option<String>,
    /// `None` matches every effect.
    effect: Option<Effect>,
}

impl Toleration {
    /// Parses a toleration; `None` for an unknown operator or effect, which tolerates nothing.
    #[must_use]
    pub fn parse(toleration: &v1::Toleration) -> Option<Toleration> {
        let effect = match toleration.effect.as_deref() {
            None | Some("") => None,
            Some(text) => Some(Effect::parse(text)?),
        };
        let key = toleration.key.clone().filter(|key| !key.is_empty());
        let value = match toleration.operator.as_deref() {
            Some("Exists") => None,
            None | Some("" | "Equal") => Some(toleration.value.clone().unwrap_or_default()),
            Some(_) => return None,
        };
        (key.is_some() || value.is_none()).then_some(Toleration { key, value, effect })
    }

    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_deref().is_none_or(|key| key == taint.key.as_ref())
            && self.value.as_deref().is_none_or(|value| value == taint.value.as_ref())
    }
}

#[must_use]
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint = Taint::new("dedicated", "db", Effect::NoSchedule);
        for (toleration, tolerates) in [
            (json!({"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}), true),
            (json!({"key": "dedicated", "value": "db"}), true),
            (json!({"key": "dedicated", "value": "web"}), false),
            (json!({"key": "dedicated"}), false),
            (json!({"key": "dedicated", "operator": "Exists"}), true),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"operator": "Equal", "value": "db"}), false),
            (json!({"key": "dedicated", "operator": "Sometimes"}), false),
        ] {
            let parsed: v1::Toleration = serde_json::from_value(toleration.clone()).expect("a toleration");
            let matched = Toleration::parse(&parsed).is_some_and(|parsed| parsed.tolerates(&taint));
            assert_eq!(matched, tolerates, "{toleration}");
        }
    }
}
