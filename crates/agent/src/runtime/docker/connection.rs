//! The connection to a Docker engine, and the negotiation of its API version.

use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use http::Uri;
use http::uri::PathAndQuery;
use parking_lot::RwLock;

use super::{DEFAULT_ENDPOINT, within_limit};
use crate::runtime::RuntimeError;

/// The oldest supported API version, which is that of Docker Engine 20.10.
const OLDEST: ApiVersion = ApiVersion { major: 1, minor: 41 };
/// Maximum time of a request for the engine's version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of the client library, in seconds. Each call has a shorter one of its own.
const CLIENT_TIMEOUT_SECONDS: u64 = 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion {
    major: usize,
    minor: usize,
}

impl ApiVersion {
    /// Returns the newest version that the client library supports.
    fn newest() -> Self {
        ApiVersion { major: API_DEFAULT_VERSION.major_version, minor: API_DEFAULT_VERSION.minor_version }
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(ApiVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A client and the API version that was negotiated with the engine. Requests before the negotiation name no version.
pub(super) struct Connection {
    pub docker: Docker,
    endpoint: String,
    agreed: Arc<RwLock<Option<ApiVersion>>>,
}

impl Connection {
    /// # Errors
    /// When the endpoint is malformed. Whether an engine answers is not checked here.
    pub(super) fn new(endpoint: Option<&str>) -> Result<Self, RuntimeError> {
        let endpoint = endpoint.unwrap_or(DEFAULT_ENDPOINT).to_owned();
        let newest: &ClientVersion = API_DEFAULT_VERSION;
        let docker = if endpoint.starts_with("unix://") || endpoint.starts_with('/') {
            Docker::connect_with_unix(&endpoint, CLIENT_TIMEOUT_SECONDS, newest)
        } else {
            Docker::connect_with_http(&endpoint, CLIENT_TIMEOUT_SECONDS, newest)
        };
        let docker = docker.map_err(|source| RuntimeError::Unreachable { endpoint: endpoint.clone(), source })?;
        let agreed: Arc<RwLock<Option<ApiVersion>>> = Arc::default();
        let spoken = Arc::clone(&agreed);
        // bollard omits the version from its paths, which would mean the engine's newest version.
        let docker = docker.with_request_modifier(move |mut request| {
            if let Some(uri) = spoken.read().and_then(|version| versioned(request.uri(), version)) {
                *request.uri_mut() = uri;
            }
            request
        });
        Ok(Connection { docker, endpoint, agreed })
    }

    /// Returns the path prefix of requests that are made without bollard: `/v1.41`, or nothing before the negotiation.
    pub(super) fn version_prefix(&self) -> String {
        self.agreed.read().map_or_else(String::new, |version| format!("/v{version}"))
    }

    /// Negotiates the newest version that both sides support, and returns the engine's own version. Must be repeated
    /// because the engine may have been replaced by another version.
    ///
    /// # Errors
    /// When the engine does not answer, or there is no common version.
    pub(super) async fn negotiate(&self) -> Result<String, RuntimeError> {
        let answer = within_limit("ask for the version", VERSION_DEADLINE, self.docker.version()).await?;
        let parse = |text: Option<&String>| text.and_then(|text| ApiVersion::parse(text));
        let newest = parse(answer.api_version.as_ref());
        let oldest = parse(answer.min_api_version.as_ref());
        let agreed = agree(oldest, newest)
            .map_err(|message| RuntimeError::Version { endpoint: self.endpoint.clone(), message })?;
        let before = self.agreed.write().replace(agreed);
        if before != Some(agreed) {
            tracing::info!(endpoint = %self.endpoint, version = %agreed, "negotiated the version of Docker's API");
        }
        Ok(answer.version.unwrap_or_default())
    }
}

/// Returns the newest version that the agent and an engine with the versions `oldest` to `newest` support, or the
/// message for the lack of one.
fn agree(oldest: Option<ApiVersion>, newest: Option<ApiVersion>) -> Result<ApiVersion, String> {
    let Some(newest) = newest else { return Err("does not tell which version of its API it speaks".to_owned()) };
    if newest < OLDEST {
        return Err(format!(
            "speaks version {newest} of its API, and {OLDEST} is needed: upgrade it to Docker 20.10 or later"
        ));
    }
    let ours = ApiVersion::newest();
    match oldest {
        Some(oldest) if oldest > ours => Err(format!(
            "speaks version {oldest} of its API and later, and this agent {ours} at most: upgrade the agent"
        )),
        _ => Ok(newest.min(ours)),
    }
}

/// Prefixes the path with the version. Requests for the engine's version stay without one.
fn versioned(uri: &Uri, version: ApiVersion) -> Option<Uri> {
    let path = uri.path_and_query()?;
    if path.path() == "/version" {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("/v{version}{path}")).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use hyper::body::Incoming;

    use super::super::fake::{self, Answer, json};
    use super::*;

    fn version(minor: usize) -> ApiVersion {
        ApiVersion { major: 1, minor }
    }

    #[test]
    fn the_newest_common_version_is_negotiated() {
        let ours = ApiVersion::newest();
        assert_eq!(agree(Some(version(12)), Some(version(41))), Ok(version(41)), "Docker 20.10");
        assert_eq!(agree(Some(version(44)), Some(version(52))), Ok(version(52)), "Docker 29");
        assert_eq!(agree(Some(version(44)), Some(version(990))), Ok(ours), "a Docker of the future");
        let too_old = agree(None, Some(version(40))).expect_err("Docker 19.03");
        assert!(too_old.contains("speaks version 1.40 of its API, and 1.41 is needed"), "{too_old}");
        let too_new = agree(Some(version(989)), Some(version(990))).expect_err("a Docker of the far future");
        assert!(too_new.contains("speaks version 1.989 of its API and later"), "{too_new}");
        assert!(agree(None, None).is_err());
    }

    /// Answers like an engine that supports the versions 1.`oldest` to 1.`newest` and refuses others in Docker's words.
    fn answer(request: &Request<Incoming>, oldest: usize, newest: usize) -> Answer {
        let path = request.uri().path();
        let (asked, path) = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
            Some((minor, rest)) => (minor.parse().expect("a minor version"), format!("/{rest}")),
            None => (newest, path.to_owned()),
        };
        if asked < oldest {
            let message = format!("client version 1.{asked} is too old. Minimum supported API version is 1.{oldest}");
            return json(400, format!(r#"{{"message":"{message}, please upgrade your client to a newer version"}}"#));
        }
        if asked > newest {
            let message = format!("client version 1.{asked} is too new. Maximum supported API version is 1.{newest}");
            return json(400, format!(r#"{{"message":"{message}"}}"#));
        }
        match path.as_str() {
            "/version" => {
                json(200, format!(r#"{{"Version":"x","ApiVersion":"1.{newest}","MinAPIVersion":"1.{oldest}"}}"#))
            }
            "/containers/json" => json(200, format!(r#"[{{"Id":"asked-1.{asked}"}}]"#)),
            _ => json(404, r#"{"message":"page not found"}"#.to_owned()),
        }
    }

    fn engine(dir: &tempfile::TempDir, oldest: usize, newest: usize) -> Connection {
        let socket = fake::serve(dir, move |request| answer(request, oldest, newest));
        Connection::new(Some(&socket)).expect("a connection")
    }

    async fn listed(connection: &Connection) -> String {
        let options = None::<bollard::query_parameters::ListContainersOptions>;
        let list = connection.docker.list_containers(options).await.expect("the engine supports the version");
        list.into_iter().filter_map(|container| container.id).collect()
    }

    #[tokio::test]
    async fn requests_to_old_and_new_engines_name_a_version_they_support() {
        let ours = ApiVersion::newest().minor;
        for (oldest, newest, spoken) in [(12, 41, 41), (44, 52, 52), (44, ours + 5, ours)] {
            let dir = tempfile::tempdir().expect("a directory");
            let connection = engine(&dir, oldest, newest);
            assert_eq!(listed(&connection).await, format!("asked-1.{newest}"), "no version is named at first");
            connection.negotiate().await.expect("a common version");
            assert_eq!(listed(&connection).await, format!("asked-1.{spoken}"), "{oldest} to {newest}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_refused_with_the_needed_version() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = engine(&dir, 12, 40).negotiate().await.expect_err("Docker 19.03").to_string();
        assert!(error.contains("docker.sock speaks version 1.40 of its API, and 1.41 is needed"), "{error}");
    }
}
