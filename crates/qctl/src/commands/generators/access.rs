//! Service accounts, roles and their bindings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Generate, new, pairs, unique};
use crate::error::{CliError, Result};
use crate::session::Session;

const GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// A service account has no flags of its own.
#[derive(Debug, clap::Args)]
pub struct ServiceAccount {}

impl Generate for ServiceAccount {
    const FAILURE: &'static str = "failed to create serviceaccount: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        Ok(new("v1", "ServiceAccount", name))
    }
}

/// Verbs that Kubernetes knows for resources.
const RESOURCE_VERBS: [&str; 14] = [
    "*",
    "get",
    "delete",
    "list",
    "create",
    "update",
    "patch",
    "watch",
    "proxy",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
];
pub const URL_VERBS: [&str; 8] = ["*", "get", "post", "put", "delete", "patch", "head", "options"];
/// Verbs that exist only for these resources.
const SPECIAL: [(&str, &[(&str, &str)]); 4] = [
    ("use", &[("policy", "podsecuritypolicies"), ("extensions", "podsecuritypolicies")]),
    ("bind", &[(GROUP, "roles"), (GROUP, "clusterroles")]),
    ("escalate", &[(GROUP, "roles"), (GROUP, "clusterroles")]),
    ("impersonate", &[("", "users"), ("", "serviceaccounts"), ("", "groups"), ("authentication.k8s.io", "userextras")]),
];

/// The flags of a role's rule.
#[derive(Debug, Default, clap::Args)]
struct Rule {
    /// What the role allows, such as get,list,watch
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// RESOURCE[.GROUP][/SUBRESOURCE]
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    /// Names of the only objects that the role allows
    #[arg(long)]
    resource_name: Vec<String>,
}

impl Rule {
    fn verbs(&self) -> Result<Vec<String>> {
        if self.verb.is_empty() {
            return Err(CliError::usage("at least one verb must be specified"));
        }
        if self.verb.iter().any(|verb| verb == "*") {
            return Ok(vec!["*".to_owned()]);
        }
        Ok(unique(&self.verb))
    }

    /// Returns one rule for each API group of the resources.
    async fn rules(&self, session: &mut Session, verbs: &[String]) -> Result<Vec<Value>> {
        for verb in verbs.iter().filter(|verb| !RESOURCE_VERBS.contains(&verb.as_str())) {
            session.streams.note(format!("Warning: '{verb}' is not a standard resource verb"))?;
        }
        let mut groups = BTreeMap::<String, Vec<String>>::new();
        let everything = self.resource.iter().find(|resource| *resource == "*");
        for text in everything.map_or(self.resource.as_slice(), std::slice::from_ref) {
            let (group, resource) = resolve(session, text, verbs).await?;
            let resources = groups.entry(group).or_default();
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
        let names = unique(&self.resource_name);
        let rule = |(group, resources): (String, Vec<String>)| {
            let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        };
        Ok(groups.into_iter().map(rule).collect())
    }
}

/// Returns the group and the full name of a resource, with its subresource.
async fn resolve(session: &mut Session, text: &str, verbs: &[String]) -> Result<(String, String)> {
    let (resource, subresource) = text.split_once('/').map_or((text, None), |(name, sub)| (name, Some(sub)));
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    if name.is_empty() {
        return Err(CliError::usage("resource must be specified if apiGroup/subresource specified"));
    }
    let known = if name == "*" { None } else { Some(session.one_type(resource).await) };
    let (group, name) = match &known {
        Some(Ok(known)) => (known.group.clone(), known.plural.clone()),
        _ => (group.to_owned(), name.to_owned()),
    };
    let mut is_special = false;
    for (verb, resources) in SPECIAL.iter().filter(|(verb, _)| name != "*" && verbs.iter().any(|v| v == verb)) {
        if !resources.contains(&(group.as_str(), name.as_str())) {
            return Err(CliError::usage(format!("can not perform '{verb}' on '{name}' in group '{group}'")));
        }
        is_special = true;
    }
    match known {
        // Some resources of rules are not served, such as users.
        Some(Err(error)) if !is_special => Err(error),
        _ => Ok((group, subresource.map_or(name.clone(), |sub| format!("{name}/{sub}")))),
    }
}

/// The flags of a Role.
#[derive(Debug, clap::Args)]
pub struct Role {
    #[command(flatten)]
    rule: Rule,
}

impl Generate for Role {
    async fn object(&self, name: &str, session: &mut Session) -> Result<Value> {
        let verbs = self.rule.verbs()?;
        if self.rule.resource.is_empty() {
            return Err(CliError::usage("at least one resource must be specified"));
        }
        let mut object = new(API_VERSION, "Role", name);
        object["rules"] = self.rule.rules(session, &verbs).await?.into();
        Ok(object)
    }
}

/// The flags of a ClusterRole.
#[derive(Debug, clap::Args)]
pub struct ClusterRole {
    #[command(flatten)]
    rule: Rule,
    /// Paths that are no resources, such as /healthz or /logs/*
    #[arg(long, value_delimiter = ',')]
    non_resource_url: Vec<String>,
    /// Labels of the cluster roles whose rules this one unites, as KEY=VALUE
    #[arg(long, value_delimiter = ',')]
    aggregation_rule: Vec<String>,
}

impl Generate for ClusterRole {
    const NAMESPACED: bool = false;

    async fn object(&self, name: &str, session: &mut Session) -> Result<Value> {
        let mut object = new(API_VERSION, "ClusterRole", name);
        let Rule { verb, resource, resource_name } = &self.rule;
        let urls = &self.non_resource_url;
        if !self.aggregation_rule.is_empty() {
            if ![verb, resource, resource_name, urls].iter().all(|list| list.is_empty()) {
                return Err(CliError::usage(
                    "aggregation rule must be specified without nonResourceURLs, verbs, resources or resourceNames",
                ));
            }
            let labels: Value = pairs(&self.aggregation_rule, "aggregation rule")?;
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            return Ok(object);
        }
        let verbs = self.rule.verbs()?;
        if resource.is_empty() && urls.is_empty() {
            return Err(CliError::usage("one of resource or nonResourceURL must be specified"));
        }
        let mut rules = Vec::new();
        if !resource.is_empty() {
            rules.extend(self.rule.rules(session, &verbs).await?);
        }
        if !urls.is_empty() {
            check_urls(urls, &verbs)?;
            rules.push(json!({"nonResourceURLs": unique(urls), "verbs": verbs}));
        }
        object["rules"] = rules.into();
        Ok(object)
    }
}

fn check_urls(urls: &[String], verbs: &[String]) -> Result<()> {
    if let Some(verb) = verbs.iter().find(|verb| !URL_VERBS.contains(&verb.as_str())) {
        return Err(CliError::usage(format!("invalid verb: '{verb}' for nonResourceURL")));
    }
    for url in urls.iter().filter(|url| *url != "*") {
        if !url.starts_with('/') {
            return Err(CliError::usage("nonResourceURL should start with /"));
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            return Err(CliError::usage("nonResourceURL only supports wildcard matches when '*' is at the end"));
        }
    }
    Ok(())
}

/// Who is bound to a role.
#[derive(Debug, Default, clap::Args)]
struct Subjects {
    /// Users to bind, also as --user, which is the kubeconfig's user before the command
    #[arg(long)]
    bind_user: Vec<String>,
    /// Groups to bind
    #[arg(long)]
    group: Vec<String>,
    /// Service accounts to bind, as NAMESPACE:NAME
    #[arg(long)]
    serviceaccount: Vec<String>,
}

impl Subjects {
    fn list(&self) -> Result<Vec<Value>> {
        let named = |kind: &'static str| move |name: &String| json!({"kind": kind, "apiGroup": GROUP, "name": name});
        let mut subjects: Vec<Value> = self.bind_user.iter().map(named("User")).collect();
        subjects.extend(self.group.iter().map(named("Group")));
        for text in &self.serviceaccount {
            let account = text
                .split_once(':')
                .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains(':'));
            let (namespace, name) =
                account.ok_or_else(|| CliError::usage("serviceaccount must be <namespace>:<name>"))?;
            subjects.push(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}));
        }
        Ok(subjects)
    }
}

fn binding(kind: &str, name: &str, role: (&str, &str), subjects: Vec<Value>) -> Value {
    let mut object = new(API_VERSION, kind, name);
    let (role_kind, role_name) = role;
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role_name});
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    object
}

/// The flags of a RoleBinding.
#[derive(Debug, clap::Args)]
pub struct RoleBinding {
    /// The ClusterRole to grant in the namespace
    #[arg(long)]
    clusterrole: Option<String>,
    /// The Role to grant
    #[arg(long)]
    role: Option<String>,
    #[command(flatten)]
    subjects: Subjects,
}

impl Generate for RoleBinding {
    const FAILURE: &'static str = "failed to create rolebinding: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let role = match (&self.role, &self.clusterrole) {
            (Some(role), None) => ("Role", role.as_str()),
            (None, Some(role)) => ("ClusterRole", role.as_str()),
            _ => return Err(CliError::usage("exactly one of clusterrole or role must be specified")),
        };
        Ok(binding("RoleBinding", name, role, self.subjects.list()?))
    }
}

/// The flags of a ClusterRoleBinding.
#[derive(Debug, clap::Args)]
pub struct ClusterRoleBinding {
    /// The ClusterRole to grant in all namespaces
    #[arg(long)]
    clusterrole: String,
    #[command(flatten)]
    subjects: Subjects,
}

impl Generate for ClusterRoleBinding {
    const FAILURE: &'static str = "failed to create clusterrolebinding: ";
    const NAMESPACED: bool = false;

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        Ok(binding("ClusterRoleBinding", name, ("ClusterRole", &self.clusterrole), self.subjects.list()?))
    }
}
