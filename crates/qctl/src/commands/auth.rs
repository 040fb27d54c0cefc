//! `auth`: what the user may do, and who the user is.

mod rules;

use http::Method;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::output::{self, Format, TablePrinter};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::Call;

use super::generators::URL_VERBS;

/// Check what you may do, and who you are
#[derive(Debug, clap::Args)]
pub struct Auth {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    CanI(CanI),
    Whoami(WhoAmI),
}

impl Auth {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        match self.action {
            Action::CanI(command) => command.run(session).await,
            Action::Whoami(command) => command.run(session).await,
        }
    }
}

/// Check whether an action is allowed; the exit code is 1 if it is not
#[derive(Debug, clap::Args)]
struct CanI {
    /// VERB, and TYPE, TYPE/NAME or a path such as /healthz
    #[arg(value_name = "VERB TYPE[/NAME]|PATH")]
    arguments: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print nothing
    #[arg(short = 'q', long)]
    quiet: bool,
    /// A part of the object, such as log or scale
    #[arg(long)]
    subresource: Option<String>,
    /// Print all allowed actions
    #[arg(long)]
    list: bool,
    #[arg(long)]
    no_headers: bool,
}

const ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const RESOURCE_VERBS: [&str; 16] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "impersonate",
    "*",
    "approve",
    "sign",
    "escalate",
    "attest",
];

/// Sends a review. A server without its API cannot answer.
async fn review(session: &Session, path: &str, body: &Value) -> Result<Value> {
    let answer = session.transport.json(&Call::new(Method::POST, RequestPath::raw(path)).body(body)).await;
    answer.map_err(|error| {
        let name = path.rsplit('/').next().unwrap_or_default();
        if error.is_not_found() {
            CliError::usage(format!("the {name} API is not enabled in the cluster; upgrade its masters"))
        } else {
            error
        }
    })
}

impl CanI {
    async fn run(self, session: &mut Session) -> Result<()> {
        if self.list {
            return self.rules(session).await;
        }
        let [verb, what] = self.arguments.as_slice() else {
            return Err(CliError::usage(
                "you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'qctl auth can-i -h' for help and examples.",
            ));
        };
        if self.no_headers {
            return Err(CliError::usage("--no-headers cannot be set without --list specified"));
        }
        let spec = if what.starts_with('/') {
            if self.subresource.is_some() {
                return Err(CliError::usage("--subresource can not be used with NonResourceURL"));
            }
            check_verb(session, verb, &URL_VERBS)?;
            json!({"nonResourceAttributes": {"verb": verb, "path": what}})
        } else {
            json!({"resourceAttributes": self.attributes(session, verb, what).await?})
        };
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
        let status = review(session, ACCESS, &body).await?["status"].take();
        let is_allowed = status["allowed"].as_bool().unwrap_or(false);
        if !self.quiet {
            let reasons = ["reason", "evaluationError"].map(|field| status[field].as_str().unwrap_or_default());
            let reasons: String =
                reasons.iter().filter(|reason| !reason.is_empty()).map(|reason| format!(" - {reason}")).collect();
            session.streams.line(if is_allowed { "yes".to_owned() } else { format!("no{reasons}") })?;
        }
        if is_allowed { Ok(()) } else { Err(CliError::Exit(1)) }
    }

    async fn attributes(&self, session: &mut Session, verb: &str, what: &str) -> Result<Value> {
        let (name, object) = what.split_once('/').map_or((what, None), |(name, object)| (name, Some(object)));
        let known = if name == "*" { None } else { session.types(name).await.ok() };
        let known = known.filter(|types| types.len() == 1).and_then(|mut types| types.pop());
        let (group, resource) = match &known {
            Some(known) => (known.group.clone(), known.plural.clone()),
            None => (String::new(), name.to_owned()),
        };
        match &known {
            Some(known) if !known.namespaced && !self.all_namespaces => {
                let group = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                session.streams.note(format!("Warning: resource '{resource}' is not namespace scoped{group}\n"))?;
            }
            None if !["*", "users", "groups"].contains(&name) => {
                session.streams.note(format!("Warning: the server doesn't have a resource type '{name}'\n"))?;
            }
            _ => {}
        }
        check_verb(session, verb, &RESOURCE_VERBS)?;
        let mut attributes = json!({"verb": verb, "group": group, "resource": resource});
        if !self.all_namespaces {
            attributes["namespace"] = session.namespace.clone().into();
        }
        for (field, value) in [("name", object), ("subresource", self.subresource.as_deref())] {
            if let Some(value) = value {
                attributes[field] = value.into();
            }
        }
        Ok(attributes)
    }

    async fn rules(self, session: &mut Session) -> Result<()> {
        if !self.arguments.is_empty() {
            return Err(CliError::usage("list option must be specified with no arguments"));
        }
        if self.quiet || self.all_namespaces || self.subresource.is_some() {
            return Err(CliError::usage(
                "list option can't be specified with neither quiet, all-namespaces nor subresource options",
            ));
        }
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": session.namespace}});
        let status = review(session, RULES, &body).await?["status"].take();
        if status["incomplete"].as_bool().unwrap_or(false) {
            let reason = status["evaluationError"].as_str().unwrap_or_default();
            session.streams.note(format!("Warning: the list may be incomplete: {reason}"))?;
        }
        let headers = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"].map(str::to_owned);
        let text = TablePrinter::default().rows(&headers, &rules::rows(&status), self.no_headers);
        session.streams.text(text)
    }
}

fn check_verb(session: &mut Session, verb: &str, known: &[&str]) -> Result<()> {
    if known.contains(&verb) {
        return Ok(());
    }
    session.streams.note(format!("Warning: verb '{verb}' is not a known verb\n"))
}

/// Show your name, groups and other attributes
#[derive(Debug, clap::Args)]
struct WhoAmI {
    /// Output format: yaml, json, name or jsonpath=…
    #[arg(short = 'o', long)]
    output: Option<String>,
}

impl WhoAmI {
    async fn run(self, session: &mut Session) -> Result<()> {
        let format = Format::parse(self.output.as_deref())?;
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let answer = review(session, WHO, &body).await.map_err(|error| match error {
            CliError::Server(status) if status.code == 403 => CliError::usage(
                "the selfsubjectreviews API is not enabled in the cluster or you do not have permission to call it",
            ),
            other => other,
        })?;
        match format {
            Format::Name => session.streams.line("selfsubjectreview.authentication.k8s.io/"),
            Format::Columns(columns) => {
                let rows = [columns.row(&answer)];
                session.streams.text(TablePrinter::default().rows(&columns.headers(), &rows, false))
            }
            Format::Table { .. } => {
                let headers = ["ATTRIBUTE", "VALUE"].map(str::to_owned);
                let rows = attributes(&answer["status"]["userInfo"]);
                session.streams.text(TablePrinter::default().rows(&headers, &rows, false))
            }
            format => session.streams.text(output::document(&format, &answer)?),
        }
    }
}

fn attributes(user: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (title, field) in [("Username", "username"), ("UID", "uid")] {
        if let Some(text) = user[field].as_str().filter(|text| !text.is_empty()) {
            rows.push(vec![title.to_owned(), text.to_owned()]);
        }
    }
    if let Some(groups) = user["groups"].as_array().filter(|groups| !groups.is_empty()) {
        rows.push(vec!["Groups".to_owned(), rules::list(groups)]);
    }
    for (key, values) in user["extra"].as_object().into_iter().flatten() {
        let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
        rows.push(vec![format!("Extra: {key}"), rules::list(values)]);
    }
    rows
}
