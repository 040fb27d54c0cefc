//! An informer like that of Kubernetes' client libraries. It lists, and watches from the list's revision on. When the
//! watch ends, it watches from the last revision on, here at another member. When that revision is compacted, it
//! relists.

use std::time::Duration;

use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Context;
use super::objects::{COLLECTION, NAME};
use super::rest::{Credentials, Lines, Rest};
use crate::history::{InformerLog, InformerRecord};

const DEADLINE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(100);

/// Runs until the informer has seen everything up to `last`, which is published once it is known, or until the clients
/// are stopped.
pub async fn run(
    context: Context,
    credentials: Credentials,
    name: String,
    seed: u64,
    mut last: watch::Receiver<Option<u64>>,
) -> InformerLog {
    let mut rng = StdRng::seed_from_u64(seed);
    let members = context.layout.places.len();
    let mut informer = Informer {
        rest: Rest::new(context.layout.clone(), credentials, rng.random_range(0..members)),
        log: InformerLog { informer: name, ..InformerLog::default() },
        known: None,
        context: context.clone(),
    };
    loop {
        let round = tokio::select! {
            round = informer.round(&mut rng, &mut last) => round,
            () = context.stop.cancelled() => break,
        };
        let at = context.clock.now();
        match round {
            Ok(End::Complete) => break,
            Ok(End::Left) => informer.ended(at, false, "moves to another member".to_owned()),
            Ok(End::Gone) => {
                informer.known = None;
                informer.ended(at, true, "gone".to_owned());
            }
            Err(error) => informer.ended(at, false, error.to_string()),
        }
        let member = (informer.rest.member + rng.random_range(1..members.max(2))) % members;
        informer.rest.move_to(member);
        sleep(RETRY).await;
    }
    informer.log.complete_to = informer.known.unwrap_or(0);
    informer.log
}

enum End {
    Complete,
    Left,
    Gone,
}

struct Informer {
    context: Context,
    rest: Rest,
    log: InformerLog,
    /// Last revision up to which everything is known; `None` if a list is next.
    known: Option<u64>,
}

impl Informer {
    fn ended(&mut self, at: u64, gone: bool, reason: String) {
        self.log.records.push(InformerRecord::Ended { at, gone, reason });
    }

    async fn round(&mut self, rng: &mut StdRng, last: &mut watch::Receiver<Option<u64>>) -> anyhow::Result<End> {
        let from = match self.known {
            Some(known) => known,
            None => self.list().await?,
        };
        let path = format!("{COLLECTION}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
        let mut lines = match self.rest.watch(&path).await? {
            Ok(lines) => lines,
            Err(StatusCode::GONE) => return Ok(End::Gone),
            Err(status) => anyhow::bail!("{status}"),
        };
        let (at, member) = (self.context.clock.now(), self.rest.member);
        self.log.records.push(InformerRecord::Watched { at, member, from });
        let leave = Instant::now() + Duration::from_millis(rng.random_range(1000..15_000));
        loop {
            let wanted = *last.borrow();
            if wanted.is_some_and(|last| self.known.is_some_and(|known| known >= last)) {
                return Ok(End::Complete);
            }
            tokio::select! {
                end = self.take(&mut lines) => if let Some(end) = end? {
                    return Ok(end);
                },
                _ = last.changed() => {}
                () = sleep_until(leave), if wanted.is_none() => return Ok(End::Left),
            }
        }
    }

    async fn list(&mut self) -> anyhow::Result<u64> {
        let (revision, objects) = list(&mut self.rest).await?;
        let (at, member) = (self.context.clock.now(), self.rest.member);
        self.log.records.push(InformerRecord::Listed { at, member, revision, objects });
        self.known = Some(revision);
        Ok(revision)
    }

    /// Handles one line of the watch. It is cancel-safe, because a partial line stays buffered.
    async fn take(&mut self, lines: &mut Lines) -> anyhow::Result<Option<End>> {
        let Some(line) = lines.next().await? else { anyhow::bail!("the watch ended") };
        let at = self.context.clock.now();
        let object = &line["object"];
        if line["type"] == "ERROR" {
            anyhow::ensure!(object["code"] == 410, "{object}");
            return Ok(Some(End::Gone));
        }
        let (name, value, revision) = read(object)?;
        let record = match line["type"].as_str() {
            Some("BOOKMARK") => Some(InformerRecord::Bookmark { at, revision }),
            _ if !name.starts_with(NAME) => None,
            Some("ADDED") => Some(InformerRecord::Added { at, name, value, revision }),
            Some("MODIFIED") => Some(InformerRecord::Modified { at, name, value, revision }),
            Some("DELETED") => Some(InformerRecord::Deleted { at, name, value, revision }),
            other => anyhow::bail!("an event of type {other:?}"),
        };
        self.log.records.extend(record);
        self.known = self.known.max(Some(revision));
        Ok(None)
    }
}

/// Lists the objects of the run, and returns them with the list's revision.
///
/// # Errors
/// When there is no answer, or it is not a list.
pub async fn list(rest: &mut Rest) -> anyhow::Result<(u64, Vec<(String, String, u64)>)> {
    let answer = rest.request(Method::GET, COLLECTION, None, DEADLINE).await;
    let (status, list) = answer.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    anyhow::ensure!(status == StatusCode::OK, "{status}: {list}");
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse()?;
    let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let objects = items.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((revision, objects.into_iter().filter(|(name, ..)| name.starts_with(NAME)).collect()))
}

fn read(object: &Json) -> anyhow::Result<(String, String, u64)> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let revision = text(&object["metadata"]["resourceVersion"]).parse()?;
    Ok((text(&object["metadata"]["name"]), text(&object["data"]["value"]), revision))
}
