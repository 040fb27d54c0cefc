//! Compares the members' hashes of one revision.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{sleep, timeout};

use super::{CALL_DEADLINE, Connection, Context};
use crate::checker::hashes::Round;

const EVERY: Duration = Duration::from_secs(3);

/// Compares periodically until the clients are stopped. Members that do not answer or have not reached the revision are
/// left out.
pub async fn run(context: Context) -> Vec<Round> {
    let mut rounds = Vec::new();
    while context.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        rounds.extend(round(&context).await.ok());
    }
    rounds
}

/// Compares once, at the newest revision that any member has.
///
/// # Errors
/// When no member answers.
pub async fn round(context: &Context) -> anyhow::Result<Round> {
    let count = context.layout.places.len();
    let mut connections: Vec<_> = (0..count).map(|i| Connection::new(context.clone(), "hasher", i)).collect();
    let mut revision = None;
    let at = context.clock.now();
    let mut hashes = Vec::new();
    for connection in &mut connections {
        let member = connection.member();
        let asked = timeout(CALL_DEADLINE, hash(connection, revision.unwrap_or(0))).await;
        if let Ok(Ok((at, hash))) = asked {
            revision.get_or_insert(at);
            hashes.push((member, format!("{hash:08x}")));
        }
    }
    let revision = u64::try_from(revision.context("no member returned a hash")?)?;
    Ok(Round { at, of: "HashKV".to_owned(), revision, hashes })
}

/// Returns the hash of a revision; 0 stands for the newest one.
async fn hash(connection: &mut Connection, revision: i64) -> anyhow::Result<(i64, u32)> {
    let client = connection.client().await?;
    let answer = client.hash_kv(revision).await?;
    Ok((answer.hash_revision(), answer.hash()))
}
