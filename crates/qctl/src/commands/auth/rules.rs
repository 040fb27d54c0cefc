//! The rows of `auth can-i --list`: the rules of a review, one for each resource, with all their verbs. Pure.

use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// `deployments.apps/scale`; empty for a path.
    resource: String,
    group: String,
    urls: Vec<String>,
    names: Vec<String>,
    verbs: Vec<String>,
}

/// Returns texts as Go prints them: `[a b]`.
pub fn list(values: &[Value]) -> String {
    join(&texts(values))
}

fn join(texts: &[String]) -> String {
    format!("[{}]", texts.join(" "))
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Returns the rows of a `SelfSubjectRulesReview`'s status.
pub fn rows(status: &Value) -> Vec<Vec<String>> {
    let of = |rule: &Value, field: &str| texts(rule[field].as_array().map(Vec::as_slice).unwrap_or_default());
    let mut rules: Vec<Rule> = Vec::new();
    for rule in status["resourceRules"].as_array().into_iter().flatten() {
        let names = of(rule, "resourceNames");
        // Each name is a row of its own.
        let names: Vec<Vec<String>> =
            if names.is_empty() { vec![Vec::new()] } else { names.into_iter().map(|name| vec![name]).collect() };
        for group in of(rule, "apiGroups") {
            for resource in of(rule, "resources") {
                for names in &names {
                    add(&mut rules, &group, &resource, names, of(rule, "verbs"));
                }
            }
        }
    }
    for rule in status["nonResourceRules"].as_array().into_iter().flatten() {
        for url in of(rule, "nonResourceURLs") {
            for verb in of(rule, "verbs") {
                let (resource, group) = (String::new(), String::new());
                let rule = Rule { resource, group, urls: vec![url.clone()], names: Vec::new(), verbs: vec![verb] };
                rules.push(rule);
            }
        }
    }
    rules.sort_by_key(sort_key);
    rules.iter().map(|rule| vec![title(rule), join(&rule.urls), join(&rule.names), join(&rule.verbs)]).collect()
}

fn add(rules: &mut Vec<Rule>, group: &str, resource: &str, names: &[String], verbs: Vec<String>) {
    let same = |rule: &&mut Rule| rule.group == group && rule.resource == resource && rule.names == names;
    let Some(known) = rules.iter_mut().find(same) else {
        let (resource, group, names) = (resource.to_owned(), group.to_owned(), names.to_vec());
        rules.push(Rule { resource, group, urls: Vec::new(), names, verbs });
        return;
    };
    for verb in verbs {
        if !known.verbs.contains(&verb) {
            known.verbs.push(verb);
        }
    }
}

/// The order of kubectl: that of a rule's text.
fn sort_key(rule: &Rule) -> String {
    let resources: &[String] = if rule.resource.is_empty() { &[] } else { std::slice::from_ref(&rule.resource) };
    format!("{}{}{}{}{}", join(&rule.verbs), rule.group, join(resources), join(&rule.names), join(&rule.urls))
}

fn title(rule: &Rule) -> String {
    let (name, subresource) =
        rule.resource.split_once('/').map_or((rule.resource.as_str(), None), |(name, sub)| (name, Some(sub)));
    let mut title = name.to_owned();
    if !rule.group.is_empty() {
        title = format!("{title}.{}", rule.group);
    }
    subresource.map_or(title.clone(), |subresource| format!("{title}/{subresource}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verbs_of_one_resource_are_one_row() {
        let status = json!({
            "resourceRules": [
                {"verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["pods", "deployments/scale"]},
                {"verbs": ["list", "get"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]},
            ],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}],
        });
        let rows = rows(&status);
        let text: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        for row in [
            "pods [] [] [get list]",
            "deployments/scale [] [] [get]",
            "pods.apps [] [] [get]",
            "deployments.apps/scale [] [] [get]",
            "secrets [] [a] [get]",
            "secrets [] [b] [get]",
            " [/healthz] [] [get]",
            " [/api/*] [] [get]",
        ] {
            assert!(text.iter().any(|line| line == row), "{row}: {text:?}");
        }
        assert_eq!(rows.len(), 8, "{text:?}");
    }
}
