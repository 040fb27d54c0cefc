//! Resolves the names of types that users type: `po`, `pods`, `Deployment`, `deploy.apps`, `deployments.v1.apps` and
//! categories. Suggests names for unknown ones.

use super::{Discovery, Resource};
use crate::error::CliError;

/// The result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    Found(&'a Resource),
    /// A category such as `all`, with its members.
    Category(Vec<&'a Resource>),
    Unknown,
}

/// The name of a type: `TYPE[.VERSION][.GROUP]`.
#[derive(Debug, Clone, Copy)]
pub struct TypeName<'a>(pub &'a str);

impl TypeName<'_> {
    /// Returns the error for a type that the server does not have.
    #[must_use]
    pub fn unknown(self, discovery: &Discovery) -> CliError {
        let mut message = format!("the server doesn't have a resource type \"{}\"", self.0);
        let suggestions = suggestions(self.0, discovery);
        if suggestions.is_empty() {
            message.push_str(" (`qctl api-resources` lists the available types)");
        } else {
            message.push_str("; did you mean ");
            message.push_str(&suggestions.join(" or "));
            message.push('?');
        }
        CliError::Usage(message)
    }
}

impl Discovery {
    /// Finds a type by any of its names. The first group and version that have it are preferred.
    #[must_use]
    pub fn lookup(&self, name: TypeName<'_>) -> Lookup<'_> {
        let wanted = name.0.to_lowercase();
        let (short, rest) = wanted.split_once('.').map_or((wanted.as_str(), None), |(short, rest)| (short, Some(rest)));
        let matches_rest = |resource: &Resource| match rest {
            None => true,
            Some(rest) => {
                resource.group == rest
                    || (resource.group.is_empty() && resource.version == rest)
                    || rest
                        .split_once('.')
                        .is_some_and(|(version, group)| resource.version == version && resource.group == group)
            }
        };
        let by = |matches: &dyn Fn(&Resource) -> bool| {
            self.resources.iter().find(|resource| matches(resource) && matches_rest(resource))
        };
        let found = by(&|resource| resource.plural == short)
            .or_else(|| by(&|resource| resource.singular == short || resource.kind.to_lowercase() == short))
            .or_else(|| by(&|resource| resource.short_names.iter().any(|alias| alias == short)));
        if let Some(resource) = found {
            return Lookup::Found(resource);
        }
        let members: Vec<&Resource> = self
            .resources
            .iter()
            .filter(|resource| {
                rest.is_none()
                    && resource.has_verb("list")
                    && resource.categories.iter().any(|category| category == short)
            })
            .collect();
        if members.is_empty() { Lookup::Unknown } else { Lookup::Category(members) }
    }

    /// Returns the resource that serves objects of this `apiVersion` and `kind`.
    #[must_use]
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }
}

/// Returns names at a small edit distance, nearest first.
fn suggestions(name: &str, discovery: &Discovery) -> Vec<String> {
    let name = name.to_lowercase();
    let limit = if name.chars().count() <= 4 { 1 } else { 2 };
    let mut near: Vec<(usize, String)> = discovery
        .resources
        .iter()
        .flat_map(|resource| {
            [&resource.plural, &resource.singular]
                .into_iter()
                .map(|known| (distance(&name, known), resource.plural.clone()))
        })
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort();
    let mut names: Vec<String> = Vec::new();
    for (_, name) in near {
        if !names.contains(&name) && names.len() < 3 {
            names.push(name);
        }
    }
    names
}

/// Returns the Levenshtein distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery() -> Discovery {
        let mut pods = Resource::for_test("", "v1", "Pod", "pods", true);
        pods.short_names = vec!["po".into()];
        pods.categories = vec!["all".into()];
        let mut deployments = Resource::for_test("apps", "v1", "Deployment", "deployments", true);
        deployments.short_names = vec!["deploy".into()];
        deployments.categories = vec!["all".into()];
        let events = Resource::for_test("", "v1", "Event", "events", true);
        let new_events = Resource::for_test("events.k8s.io", "v1", "Event", "events", true);
        Discovery { resources: vec![pods, events, deployments, new_events] }
    }

    #[test]
    fn types_are_found_by_all_their_names() {
        let discovery = discovery();
        for (name, group, plural) in [
            ("po", "", "pods"),
            ("Pod", "", "pods"),
            ("pods.v1", "", "pods"),
            ("deploy", "apps", "deployments"),
            ("deployment.apps", "apps", "deployments"),
            ("deployments.v1.apps", "apps", "deployments"),
            ("events", "", "events"),
            ("events.events.k8s.io", "events.k8s.io", "events"),
        ] {
            let Lookup::Found(resource) = discovery.lookup(TypeName(name)) else { panic!("{name} is a type") };
            assert_eq!((resource.group.as_str(), resource.plural.as_str()), (group, plural), "{name}");
        }
        assert!(matches!(discovery.lookup(TypeName("all")), Lookup::Category(members) if members.len() == 2));
        assert_eq!(discovery.lookup(TypeName("deployments.batch")), Lookup::Unknown);
    }

    #[test]
    fn unknown_types_come_with_suggestions() {
        let discovery = discovery();
        assert_eq!(
            TypeName("deplyments").unknown(&discovery).to_string(),
            "the server doesn't have a resource type \"deplyments\"; did you mean deployments?"
        );
        assert!(
            TypeName("foo")
                .unknown(&discovery)
                .to_string()
                .starts_with("the server doesn't have a resource type \"foo\"")
        );
    }
}
