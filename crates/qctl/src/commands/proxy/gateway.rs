//! Passes requests on to a master, and reads local files.

use std::convert::Infallible;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio_util::task::TaskTracker;

use super::filter::Filter;
use crate::error::CliError;
use crate::transport::Transport;

/// Maximum size of a request's body, in bytes. It is kept so that another master may get the request.
const MAX_BODY_BYTES: usize = 64 << 20;

type AnswerBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
type Answer = Response<AnswerBody>;

/// What the proxy serves.
#[derive(Clone)]
pub struct Gateway {
    pub transport: Arc<Transport>,
    /// Prefix of the API's paths, which ends with a slash.
    pub prefix: String,
    pub filter: Option<Filter>,
    /// Prefix of the files' paths, and their directory.
    pub files: Option<(String, PathBuf)>,
    /// The tasks of upgraded connections.
    pub upgraded: TaskTracker,
}

fn text(code: StatusCode, message: impl Into<String>) -> Answer {
    let body = Full::from(message.into() + "\n").map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

impl Gateway {
    /// Answers a client.
    pub async fn answer(self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let path = request.uri().path().to_owned();
        if let Some((prefix, directory)) = &self.files
            && let Some(name) = path.strip_prefix(prefix.as_str())
        {
            return Ok(file(directory, name).await);
        }
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        // A prefix such as /api/ is a part of the API's own paths.
        let stripped = if self.prefix.starts_with("/api") {
            path.starts_with(&self.prefix).then_some(path.as_str())
        } else {
            path.strip_prefix(self.prefix.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))
        };
        let Some(stripped) = stripped else { return Ok(text(StatusCode::NOT_FOUND, "404 page not found")) };
        // The API decodes the segments of a path, so the filter sees them decoded too.
        let decoded = percent_encoding::percent_decode_str(stripped).decode_utf8_lossy();
        if self.filter.as_ref().is_some_and(|filter| !filter.accepts(request.method(), &decoded, host)) {
            return Ok(text(StatusCode::FORBIDDEN, "Forbidden"));
        }
        let target = match request.uri().query() {
            Some(query) => format!("{stripped}?{query}"),
            None => stripped.to_owned(),
        };
        Ok(self
            .pass(request, &target)
            .await
            .unwrap_or_else(|error| text(StatusCode::BAD_GATEWAY, format!("Error while proxying request: {error}"))))
    }

    async fn pass(&self, mut request: Request<Incoming>, target: &str) -> Result<Answer, CliError> {
        let invalid = |error: http::uri::InvalidUri| CliError::usage(error.to_string());
        let client = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        parts.uri = target.parse::<Uri>().map_err(invalid)?;
        // The master has its own name, and the connection to it is not the client's.
        parts.headers.remove(header::HOST);
        if client.is_none() {
            parts.headers.remove(header::CONNECTION);
        }
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())),
        };
        parts.headers.remove(header::TRANSFER_ENCODING);
        let mut answer = self.transport.pass(&parts, &body).await?;
        if let (Some(client), StatusCode::SWITCHING_PROTOCOLS) = (client, answer.status()) {
            let master = hyper::upgrade::on(&mut answer);
            // The task ends with either connection.
            self.upgraded.spawn(async move {
                let joined = async {
                    let (client, master) = futures::try_join!(client, master)?;
                    let copied =
                        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(master)).await;
                    if let Err(error) = copied {
                        tracing::debug!(%error, "an upgraded connection failed");
                    }
                    Ok::<(), hyper::Error>(())
                };
                if let Err(error) = joined.await {
                    tracing::debug!(%error, "a connection was not upgraded");
                }
            });
        } else {
            answer.headers_mut().remove(header::CONNECTION);
        }
        answer.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok(answer.map(|body: Body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// Reads a file below the directory.
async fn file(directory: &Path, name: &str) -> Answer {
    let missing = || text(StatusCode::NOT_FOUND, "404 page not found");
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let relative = Path::new(decoded.as_ref());
    if relative.components().any(|component| !matches!(component, Component::Normal(_))) {
        return missing();
    }
    let mut path = directory.join(relative);
    if path.is_dir() {
        path.push("index.html");
    }
    let Ok(content) = tokio::fs::read(&path).await else { return missing() };
    let mut answer = Response::new(Full::from(content).map_err(|never| match never {}).boxed_unsync());
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
