//! Watches: streams of changes, and following one object until it meets a condition.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::error::{CliError, Result, ServerStatus};
use crate::path::RequestPath;
use crate::resources::Resource;
use crate::transport::{ByteStream, Call, Transport};

/// One change.
#[derive(Debug, Deserialize)]
pub struct WatchEvent {
    #[serde(rename = "type")]
    pub kind: String,
    pub object: Value,
}

impl WatchEvent {
    /// Whether the event is a bookmark, which marks progress and is not a change.
    #[must_use]
    pub fn is_bookmark(&self) -> bool {
        self.kind == "BOOKMARK"
    }
}

/// A stream of changes.
pub struct Watch {
    stream: ByteStream,
}

impl Watch {
    /// Starts a watch after `version`. `accept` may request tables.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn start(
        transport: &Transport,
        path: RequestPath,
        version: &str,
        accept: Option<&'static str>,
    ) -> Result<Self> {
        let path = path.query("watch", "true").query("resourceVersion", version).query("allowWatchBookmarks", "true");
        let mut call = Call::get(path);
        if let Some(accept) = accept {
            call = call.accept(accept);
        }
        Ok(Watch { stream: transport.stream(&call).await? })
    }

    /// Returns the next change, or `None` when the server has ended the watch, as it does from time to time.
    ///
    /// # Errors
    /// When the connection breaks or the server reports an error, such as a version too old (410).
    pub async fn next(&mut self) -> Result<Option<WatchEvent>> {
        let Some(line) = self.stream.line().await? else { return Ok(None) };
        let event: WatchEvent =
            serde_json::from_slice(&line).map_err(|error| CliError::Answer(format!("a watch event: {error}")))?;
        if event.kind != "ERROR" {
            return Ok(Some(event));
        }
        let status: ServerStatus = serde_json::from_value(event.object)
            .map_err(|error| CliError::Answer(format!("a watch's error: {error}")))?;
        Err(CliError::Server(Box::new(status)))
    }
}

/// An object to follow.
#[derive(Clone, Copy)]
pub struct Followed<'a> {
    pub resource: &'a Resource,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

/// Maximum time without a reachable master, during an election or a restart, before following fails.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

/// Calls `seen` with the object's current state and each later one, or `None` while the object does not exist, until
/// `seen` breaks. Returns `false` if `deadline` passed before.
///
/// # Errors
/// When the server refuses the request or stays unreachable, or `seen` fails.
pub async fn follow<F>(
    transport: &Transport,
    followed: Followed<'_>,
    deadline: Option<Instant>,
    mut seen: F,
) -> Result<bool>
where
    F: FnMut(Option<&Value>) -> Result<ControlFlow<()>>,
{
    let work = async {
        let mut unreachable_since: Option<Instant> = None;
        loop {
            match observe(transport, followed, &mut seen).await {
                Ok(ControlFlow::Break(())) => return Ok(true),
                Ok(ControlFlow::Continue(())) => unreachable_since = None,
                Err(error @ (CliError::Connect { .. } | CliError::Broken { .. })) => {
                    let since = *unreachable_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
                Err(error) if error.is_expired() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline, work).await {
            Ok(done) => done,
            Err(_) => Ok(false),
        },
        None => work.await,
    }
}

/// Lists the object once and then watches it.
async fn observe<F>(transport: &Transport, followed: Followed<'_>, seen: &mut F) -> Result<ControlFlow<()>>
where
    F: FnMut(Option<&Value>) -> Result<ControlFlow<()>>,
{
    let path = RequestPath::collection(followed.resource, followed.namespace)
        .query("fieldSelector", format!("metadata.name={}", followed.name));
    let list = transport.json(&Call::get(path.clone())).await?;
    let mut present = list["items"].get(0).cloned();
    if let Some(object) = &mut present {
        object["apiVersion"] = followed.resource.api_version().into();
        object["kind"] = followed.resource.kind.clone().into();
    }
    if seen(present.as_ref())?.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let mut watch = Watch::start(transport, path, version, None).await?;
    while let Some(event) = watch.next().await? {
        let state = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => Some(&event.object),
            "DELETED" => None,
            _ => continue,
        };
        if seen(state)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
