//! The `watch` verb: the events of a collection as a stream of frames.

mod event;
mod session;

use futures::{StreamExt, stream};
use quorate_api::{FieldError, FieldPath, Revision, Status};
use quorate_registry::Verb;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) use event::SharedEvents;

use crate::api::Api;
use crate::connection::Connection;
use crate::pipeline::authorize::{NodeRelation, WatchPermit};
use crate::pipeline::read;
use crate::pipeline::selection::Selection;
use crate::pipeline::watch::session::{Session, Start};
use crate::query::Query;
use crate::representation::Negotiated;
use crate::response::{Body, Response};
use crate::route::Target;

/// Minimum lifetime of a watch without `timeoutSeconds`. The actual lifetime is random, up to twice this long, so that
/// watches do not all end at once.
const MIN_TIMEOUT_SECONDS: u64 = 1800;

/// Starts a watch. It ends when the `relation` ends on which its permission rests. As clients expect, a start revision that
/// is too old leads to an `ERROR` event, not to a failed request.
///
/// # Errors
/// `BadRequest` or `Invalid` for invalid options, `Timeout` for a version that is not reached.
pub(crate) async fn watch(
    api: &Api,
    target: &Target,
    relation: Option<NodeRelation>,
    query: &Query,
    negotiated: Negotiated,
    connection: Connection,
) -> Result<Response, Status> {
    debug_assert_eq!(target.verb, Verb::Watch, "dispatch sends watches here only");
    let permit = relation.map(|relation| permit(api, target, relation)).transpose()?;
    let mut selection = Selection::parse(&target.version, query)?;
    if let Some(name) = &target.name {
        selection = selection.and_name(name)?;
    }
    let start = start(api, query).await?;
    let timeout = match query.number::<u64>("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => seconds,
        _ => rand::random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS),
    };
    let ends_at = Instant::now() + Duration::from_secs(timeout.min(24 * 3600));
    let session = Session::new(
        api.clone(),
        target,
        selection,
        negotiated,
        start,
        query.flag("allowWatchBookmarks"),
        ends_at,
        connection,
        permit,
    );
    let chunks = stream::unfold(session, |mut session| async move {
        let chunk = session.next_chunk().await?;
        Some((Ok(chunk), session))
    });
    Ok(Response::new(200, negotiated.encoding.stream_media_type(), Body::Stream(chunks.boxed())))
}

fn permit(api: &Api, target: &Target, relation: NodeRelation) -> Result<WatchPermit, Status> {
    let refused = || Status::forbidden(&target.resource.descriptor.resource, target.name(), &relation.missing());
    api.relations().open_watch(relation.clone()).ok_or_else(refused)
}

async fn start(api: &Api, query: &Query) -> Result<Start, Status> {
    let store = api.store();
    let version = query.get("resourceVersion");
    let matching = query.get("resourceVersionMatch");
    let initial = query.get("sendInitialEvents").map(|v| v == "true");
    check_initial_events(initial, matching)?;
    let wants_state = initial.unwrap_or(matches!(version, None | Some("0")));
    if wants_state {
        let consistency = read::freshness(store, version).await?;
        let reader = store.reader(consistency).await.map_err(|e| crate::error::from_store(&e))?;
        let at = reader.revision().map_err(|e| crate::error::from_store(&e))?;
        return Ok(Start::State { at, marks_end: initial == Some(true) });
    }
    let after = match version {
        Some(version) if version != "0" => read::parse(version)?,
        _ => Revision::ZERO,
    };
    if after.is_zero() {
        let reader = store.read_barrier().await.map_err(|e| crate::error::from_store(&e))?;
        return Ok(Start::After(reader.revision().map_err(|e| crate::error::from_store(&e))?));
    }
    read::reach(store, after).await?;
    Ok(Start::After(after))
}

fn check_initial_events(initial: Option<bool>, matching: Option<&str>) -> Result<(), Status> {
    let invalid = |field: &str, detail: &str| {
        let error = FieldError::forbidden(FieldPath::new(field), detail);
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]))
    };
    match (initial, matching) {
        (None, Some(_)) => invalid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (Some(_), matching) if matching != Some("NotOlderThan") => {
            invalid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        _ => Ok(()),
    }
}
