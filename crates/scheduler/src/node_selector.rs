//! Node selectors (`nodeSelector`, required and preferred node affinity), parsed once for each pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1;

/// Condition on a label, or on the node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
    /// A requirement that could not be parsed; it matches nothing.
    Never,
}

impl Condition {
    fn parse(requirement: &v1::NodeSelectorRequirement) -> Condition {
        let values = requirement.values.clone().unwrap_or_default();
        let number = || match values.as_slice() {
            [one] => one.parse::<i64>().ok(),
            _ => None,
        };
        match requirement.operator.as_str() {
            "In" => Condition::In(values),
            "NotIn" => Condition::NotIn(values),
            "Exists" => Condition::Exists,
            "DoesNotExist" => Condition::DoesNotExist,
            "Gt" => number().map_or(Condition::Never, Condition::GreaterThan),
            "Lt" => number().map_or(Condition::Never, Condition::LessThan),
            _ => Condition::Never,
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match self {
            Condition::In(values) => value.is_some_and(|value| values.iter().any(|candidate| candidate == value)),
            Condition::NotIn(values) => value.is_none_or(|value| values.iter().all(|candidate| candidate != value)),
            Condition::Exists => value.is_some(),
            Condition::DoesNotExist => value.is_none(),
            Condition::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Condition::LessThan(bound) => number().is_some_and(|number| number < *bound),
            Condition::Never => false,
        }
    }
}

/// A term of a node selector. All of its conditions must hold; a term without conditions matches no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    labels: Vec<(String, Condition)>,
    names: Vec<Condition>,
}

impl Term {
    #[must_use]
    pub fn parse(term: &v1::NodeSelectorTerm) -> Term {
        let labels = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        Term {
            labels: labels.map(|r| (r.key.clone(), Condition::parse(r))).collect(),
            names: fields
                .map(|r| if r.key == "metadata.name" { Condition::parse(r) } else { Condition::Never })
                .collect(),
        }
    }

    #[must_use]
    pub fn matches(&self, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
        !(self.labels.is_empty() && self.names.is_empty())
            && self.labels.iter().all(|(key, condition)| condition.matches(labels.get(key).map(String::as_str)))
            && self.names.iter().all(|condition| condition.matches(Some(node_name)))
    }

    /// Returns the only nodes that can match, if the term names them.
    fn named_nodes(&self) -> Option<BTreeSet<String>> {
        let mut named: Option<BTreeSet<String>> = None;
        for condition in &self.names {
            if let Condition::In(values) = condition {
                let values: BTreeSet<String> = values.iter().cloned().collect();
                named = Some(match named {
                    Some(so_far) => so_far.intersection(&values).cloned().collect(),
                    None => values,
                });
            }
        }
        named
    }
}

/// Constraints that a node must match: every pair of `nodeSelector`, and one term of the required affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredNodes {
    labels: Vec<(String, String)>,
    /// `None` means no required affinity. An empty list matches no node.
    terms: Option<Vec<Term>>,
}

impl RequiredNodes {
    #[must_use]
    pub fn parse(spec: &v1::PodSpec) -> RequiredNodes {
        let labels = spec.node_selector.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let required = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        RequiredNodes {
            labels,
            terms: required.map(|selector| selector.node_selector_terms.iter().map(Term::parse).collect()),
        }
    }

    #[must_use]
    pub fn is_unconstrained(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    #[must_use]
    pub fn matches(&self, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node_name, labels)))
    }

    /// Returns the only nodes that can match, if every term names its nodes (as the pods of a DaemonSet do). The set is
    /// empty if the names within each term contradict each other.
    #[must_use]
    pub fn named_nodes(&self) -> Option<BTreeSet<String>> {
        let terms = self.terms.as_ref().filter(|terms| !terms.is_empty())?;
        let mut named = BTreeSet::new();
        for term in terms {
            named.extend(term.named_nodes()?);
        }
        Some(named)
    }
}

/// Returns the terms of the preferred node affinity with their weights.
#[must_use]
pub fn preferred_terms(spec: &v1::PodSpec) -> Vec<(i64, Term)> {
    spec.affinity
        .iter()
        .filter_map(|affinity| affinity.node_affinity.as_ref())
        .filter_map(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref())
        .flatten()
        .filter(|preferred| preferred.weight != 0)
        .map(|preferred| (i64::from(preferred.weight), Term::parse(&preferred.preference)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn required(spec: Value) -> RequiredNodes {
        let mut spec = spec;
        spec["containers"] = json!([]);
        RequiredNodes::parse(&serde_json::from_value(spec).expect("a pod spec"))
    }

    fn affinity(terms: Value) -> RequiredNodes {
        required(json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}))
    }

    fn labels() -> BTreeMap<String, String> {
        BTreeMap::from([("disk".to_owned(), "ssd".to_owned()), ("cores".to_owned(), "16".to_owned())])
    }

    #[test]
    fn each_operator_matches_as_in_kubernetes() {
        for (key, operator, values, matches) in [
            ("disk", "In", json!(["hdd", "ssd"]), true),
            ("disk", "In", json!(["hdd"]), false),
            ("none", "In", json!(["ssd"]), false),
            ("disk", "NotIn", json!(["ssd"]), false),
            ("disk", "NotIn", json!(["hdd"]), true),
            ("none", "NotIn", json!(["ssd"]), true),
            ("disk", "Exists", json!([]), true),
            ("none", "Exists", json!([]), false),
            ("disk", "DoesNotExist", json!([]), false),
            ("none", "DoesNotExist", json!([]), true),
            ("cores", "Gt", json!(["8"]), true),
            ("cores", "Gt", json!(["16"]), false),
            ("cores", "Lt", json!(["17"]), true),
            ("cores", "Lt", json!(["16"]), false),
            ("disk", "Gt", json!(["1"]), false),
            ("none", "Lt", json!(["1"]), false),
            ("disk", "Near", json!(["ssd"]), false),
        ] {
            let selector =
                affinity(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]));
            assert_eq!(selector.matches("n1", &labels()), matches, "{key} {operator} {values}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_empty_ones_match_nothing() {
        let ssd = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]});
        let hdd = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]});
        let named = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        for (terms, matches) in [
            (json!([hdd, ssd]), true),
            (json!([hdd]), false),
            (json!([{}]), false),
            (json!([{}, ssd]), true),
            (json!([]), false),
            (json!([named]), true),
        ] {
            assert_eq!(affinity(terms.clone()).matches("n1", &labels()), matches, "{terms}");
        }
        assert!(!affinity(json!([named])).matches("n2", &labels()));
        assert!(required(json!({"nodeSelector": {"disk": "ssd"}})).matches("n1", &labels()));
        assert!(!required(json!({"nodeSelector": {"disk": "ssd", "gpu": "yes"}})).matches("n1", &labels()));
    }

    #[test]
    fn nodes_named_by_every_term_bound_the_search() {
        let field = |values: Value| json!({"key": "metadata.name", "operator": "In", "values": values});
        let one = json!({"matchFields": [field(json!(["a"]))]});
        let two = json!({"matchFields": [field(json!(["b"]))]});
        let labelled = json!({"matchExpressions": [{"key": "disk", "operator": "Exists"}]});
        let contradiction = json!({"matchFields": [field(json!(["a"])), field(json!(["b"]))]});
        let names = |list: &[&str]| Some(list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(affinity(json!([one, two])).named_nodes(), names(&["a", "b"]));
        assert_eq!(affinity(json!([one, labelled])).named_nodes(), None);
        assert_eq!(affinity(json!([contradiction])).named_nodes(), names(&[]));
        assert_eq!(required(json!({})).named_nodes(), None);
    }
}
