//! Errors of the client, and their messages: one line in kubectl's words, with the next step where that helps.

use serde::Deserialize;

/// The fields of a `Status` object that the client reads. It is the answer to a refused request, and the report of a
/// process in a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    pub status: String,
    pub code: u16,
    pub reason: String,
    pub message: String,
    pub details: Option<ServerStatusDetails>,
}

/// The object that a request was refused for, and the causes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerStatusDetails {
    pub name: String,
    pub kind: String,
    pub causes: Vec<ServerStatusCause>,
    pub retry_after_seconds: u64,
}

/// One of the reasons why an object is invalid, or the exit code of a process.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerStatusCause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl ServerStatus {
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && !self.is_already_exists()
    }

    /// Whether the start version of a watch or a continue token is older than the history that the server keeps.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The user has to correct the command. Printed as `error: …`.
    #[error("{0}")]
    Usage(String),
    /// The server refused the request.
    #[error("{}", .0.message)]
    Server(Box<ServerStatus>),
    /// No server accepted the connection.
    #[error("{}", connection_message(.server, .reason, *.refused, *.tried))]
    Connect { server: String, reason: String, refused: bool, tried: usize },
    /// The connection broke after the request was sent, so whether it took effect is unknown.
    #[error("the connection to the server {server} broke before it answered: {reason}")]
    Broken { server: String, reason: String },
    /// A stream to a container broke.
    #[error("lost the connection to the server {server}: {reason}; run the command again")]
    Lost { server: String, reason: String },
    #[error("timed out waiting for the server {server} to answer (--request-timeout)")]
    RequestTimeout { server: String },
    #[error("unexpected answer from the server: {0}")]
    Answer(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// Several failures of one command, each reported on its own line.
    #[error("{} failures", .0.len())]
    Many(Vec<CliError>),
    /// The command has reported everything itself and ends with this code.
    #[error("exit code {0}")]
    Exit(u8),
}

/// The result of everything on the client.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    pub fn usage(message: impl Into<String>) -> Self {
        CliError::Usage(message.into())
    }

    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        CliError::Io { what: what.into(), source }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, CliError::Server(status) if status.is_not_found())
    }

    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, CliError::Server(status) if status.is_already_exists())
    }

    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, CliError::Server(status) if status.is_conflict())
    }

    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(self, CliError::Server(status) if status.is_expired())
    }

    /// Whether the reader of the output has closed it (`qctl get pods | head -1`), which is not reported.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, CliError::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Adds the action and the manifest to the message: `error when creating "web.yaml": …`.
    #[must_use]
    pub fn when(self, doing: &str, source: &str) -> Self {
        match self {
            CliError::Server(mut status) => {
                status.message = format!("error when {doing} \"{source}\": {}", status.message);
                CliError::Server(status)
            }
            other => other,
        }
    }

    /// Returns the lines for standard error.
    #[must_use]
    pub fn report(&self) -> String {
        match self {
            CliError::Server(status) => server_message(status),
            CliError::Connect { .. } => self.to_string(),
            CliError::Many(errors) => errors.iter().map(CliError::report).collect::<Vec<_>>().join("\n"),
            other => format!("error: {other}"),
        }
    }

    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Exit(code) => *code,
            _ => 1,
        }
    }

    /// Combines several failures into one, or returns success if there was none.
    pub fn collect(mut errors: Vec<CliError>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(CliError::Many(errors)),
        }
    }
}

fn server_message(status: &ServerStatus) -> String {
    if status.code == 401 {
        return "error: You must be logged in to the server (Unauthorized): the client certificate or token of the kubeconfig's \
                user is missing or not accepted"
            .to_owned();
    }
    if status.reason == "Invalid"
        && let Some(details) = &status.details
    {
        let subject = if details.kind.is_empty() {
            "The request is invalid".to_owned()
        } else {
            format!("The {} \"{}\" is invalid", details.kind, details.name)
        };
        let line = |cause: &ServerStatusCause| format!("{}: {}", cause.field, cause.message);
        return match details.causes.as_slice() {
            [] => format!("{subject}: {}", status.message),
            [one] => format!("{subject}: {}", line(one)),
            many => {
                let lines: Vec<String> = many.iter().map(|cause| format!("* {}", line(cause))).collect();
                format!("{subject}: \n{}", lines.join("\n"))
            }
        };
    }
    if status.reason.is_empty() {
        format!("Error from server: {}", status.message)
    } else {
        format!("Error from server ({}): {}", status.reason, status.message)
    }
}

fn connection_message(server: &str, reason: &str, refused: bool, tried: usize) -> String {
    let hint = "check the cluster's server in the kubeconfig (`qctl config view`)";
    let others = if tried > 1 { format!(" (and {} other masters)", tried - 1) } else { String::new() };
    if refused {
        format!(
            "The connection to the server {server}{others} was refused - did you specify the right host or port? Is it running? Otherwise {hint}."
        )
    } else {
        format!("Unable to connect to the server {server}{others}: {reason}; {hint}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: serde_json::Value) -> CliError {
        CliError::Server(Box::new(serde_json::from_value(json).expect("a Status")))
    }

    #[test]
    fn refusals_have_kubectls_wording() {
        let missing = status(serde_json::json!({"code": 404, "reason": "NotFound", "message": "pods \"x\" not found"}));
        assert_eq!(missing.report(), "Error from server (NotFound): pods \"x\" not found");
        let created =
            status(serde_json::json!({"code": 409, "reason": "AlreadyExists", "message": "pods \"x\" already exists"}))
                .when("creating", "pod.yaml");
        assert_eq!(
            created.report(),
            "Error from server (AlreadyExists): error when creating \"pod.yaml\": pods \"x\" already exists"
        );
    }

    #[test]
    fn invalid_objects_list_their_causes() {
        let one = status(serde_json::json!({"code": 422, "reason": "Invalid", "message": "whole",
            "details": {"kind": "Pod", "name": "x", "causes": [{"field": "spec.containers", "message": "Required value"}]}}));
        assert_eq!(one.report(), "The Pod \"x\" is invalid: spec.containers: Required value");
        let two = status(serde_json::json!({"code": 422, "reason": "Invalid", "message": "whole",
            "details": {"kind": "Pod", "name": "x", "causes": [
                {"field": "a", "message": "Required value"}, {"field": "b", "message": "Invalid value"}]}}));
        assert_eq!(two.report(), "The Pod \"x\" is invalid: \n* a: Required value\n* b: Invalid value");
    }
}
