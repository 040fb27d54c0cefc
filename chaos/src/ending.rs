//! The end of a run, when everything is healed and no client writes any more: all watchers catch up, and all members
//! must have the same state.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::GetOptions;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::checker::hashes::Round;
use crate::clients::leases::LEASED;
use crate::clients::objects::{COLLECTION, NAME};
use crate::clients::rest::{Credentials, Rest};
use crate::clients::watcher::{self, Style};
use crate::clients::{Connection, Context, PREFIX, counters, hasher, informer};
use crate::history::{Api, History, InformerLog, LeaseLog, Operation, Outcome, Transaction, WatchLog};
use crate::world::MemberIndex;

/// Time for watchers to catch up with the last revision without faults.
const WATCHERS_WITHIN: Duration = Duration::from_secs(30);
/// Time for all leases to expire: twice the longest time to live, because a new leader extends a lease once, and some
/// slack.
const LEASES_WITHIN: Duration = Duration::from_secs(30);
const SAME_WITHIN: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(200);
/// Deadline of a read of the whole keyspace, which takes longer than a read of one key.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// A key as a member returns it: its name, value and revision.
pub type Shown = (String, String, u64);

/// The state of all members at the end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Why the rest is incomplete. Set when the quorum does not serve again after everything is healed.
    pub problem: Option<String>,
    /// The last revision that watchers must have seen.
    pub last: u64,
    /// The last revision that informers must have seen.
    pub last_object: u64,
    pub hashes: Vec<Round>,
    /// The clients' keys at `last`, as each member returns them.
    pub keys: Vec<(MemberIndex, Vec<Shown>)>,
    /// The `ConfigMaps`, as each member lists them.
    pub objects: Vec<(MemberIndex, Vec<Shown>)>,
    /// The final value of the clients' counter.
    pub counter: Option<u64>,
}

/// Inputs of the end of a run.
pub struct Closing {
    pub context: Context,
    pub credentials: Credentials,
    pub compacted: u64,
    pub last: watch::Sender<Option<u64>>,
    pub last_object: watch::Sender<Option<u64>>,
}

impl Closing {
    /// Lets watchers and informers catch up, reads from every member, and waits for leases to expire. The result holds
    /// any error in `problem`.
    pub async fn run(
        self,
        watches: &mut JoinSet<WatchLog>,
        informers: &mut JoinSet<InformerLog>,
        history: &mut History,
    ) -> Ending {
        let mut ending = Ending::default();
        if let Err(error) = self.fill(&mut ending, watches, informers, history).await {
            ending.problem = Some(format!("{error:#}"));
        }
        self.context.stop.cancel();
        ending
    }

    async fn fill(
        &self,
        ending: &mut Ending,
        watches: &mut JoinSet<WatchLog>,
        informers: &mut JoinSet<InformerLog>,
        history: &mut History,
    ) -> anyhow::Result<()> {
        let write = self.last_write().await?;
        ending.last = write.revision().unwrap_or(0);
        history.operations.push(write);
        ending.last_object = self.last_object().await?;
        self.last.send_replace(Some(ending.last));
        self.last_object.send_replace(Some(ending.last_object));
        // Each member replays the whole history once more, from disk.
        for member in 0..self.context.layout.places.len() {
            let style =
                Style { name: format!("replay-m{}", member + 1), seed: 0, with_previous: false, member: Some(member) };
            let (context, first, last) = (self.context.clone(), self.compacted + 1, self.last.subscribe());
            watches.spawn(watcher::run(context, style, first, Arc::default(), last));
        }
        let deadline = Instant::now() + WATCHERS_WITHIN;
        while let Ok(Some(log)) = tokio::time::timeout_at(deadline, watches.join_next()).await {
            history.watches.push(log?);
        }
        while let Ok(Some(log)) = tokio::time::timeout_at(deadline, informers.join_next()).await {
            history.informers.push(log?);
        }
        ending.counter = Some(self.counter().await?);
        // A watcher that has not caught up by now records that when it is stopped.
        self.members(ending).await?;
        self.leases(history).await?;
        ending.hashes = self.hashes().await?;
        Ok(())
    }

    /// Writes a key after all clients have stopped, so that its revision is the last one.
    async fn last_write(&self) -> anyhow::Result<Operation> {
        let mut connection = Connection::new(self.context.clone(), "last", 0);
        let key = format!("{PREFIX}last");
        let operation = connection.call(Api::Etcd, &key, Transaction::put(key.as_str(), "last")).await;
        match operation.outcome {
            Outcome::Done { .. } => Ok(operation),
            _ => anyhow::bail!("a healthy quorum does not accept a write: {operation:?}"),
        }
    }

    async fn last_object(&self) -> anyhow::Result<u64> {
        let mut rest = Rest::new(self.context.layout.clone(), self.credentials.clone(), 0);
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{NAME}last")}, "data": {"value": "last"},
        });
        let answer = rest.request(http::Method::POST, COLLECTION, Some(&object), READ_DEADLINE).await;
        let (status, created) = answer.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        let version = created["metadata"]["resourceVersion"].as_str();
        version.with_context(|| format!("{status}: {created}"))?.parse().context("a resource version")
    }

    async fn counter(&self) -> anyhow::Result<u64> {
        let mut rest = Rest::new(self.context.layout.clone(), self.credentials.clone(), 0);
        let deadline = Instant::now() + SAME_WITHIN;
        loop {
            match counters::read(&mut rest).await {
                Ok((counter, _)) => return Ok(counter),
                Err(reason) if Instant::now() > deadline => anyhow::bail!("the counter cannot be read: {reason}"),
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Reads all keys and objects from every member.
    async fn members(&self, ending: &mut Ending) -> anyhow::Result<()> {
        for member in 0..self.context.layout.places.len() {
            let mut connection = Connection::new(self.context.clone(), "last", member);
            let keys = timeout(READ_DEADLINE, read_all(&mut connection, PREFIX, ending.last)).await;
            ending.keys.push((member, keys.with_context(|| format!("m{} returns no keys", member + 1))??));
            let mut rest = Rest::new(self.context.layout.clone(), self.credentials.clone(), member);
            let (_, objects) = informer::list(&mut rest).await.with_context(|| format!("m{}", member + 1))?;
            ending.objects.push((member, objects));
        }
        Ok(())
    }

    /// Waits until no key with a lease is left, and records the keys that remain.
    async fn leases(&self, history: &mut History) -> anyhow::Result<()> {
        let deadline = Instant::now() + LEASES_WITHIN;
        let mut connection = Connection::new(self.context.clone(), "last", 0);
        loop {
            let left = timeout(READ_DEADLINE, read_all(&mut connection, LEASED, 0)).await??;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                for (key, ..) in left {
                    match history.leases.iter_mut().find(|lease| lease.key == key) {
                        Some(lease) => lease.left_over = true,
                        None => history.leases.push(LeaseLog { key, left_over: true, ..LeaseLog::default() }),
                    }
                }
                return Ok(());
            }
            sleep(RETRY).await;
        }
    }

    /// Both kinds of hashes, of all members, at one revision each.
    async fn hashes(&self) -> anyhow::Result<Vec<Round>> {
        let members = self.context.layout.places.len();
        let deadline = Instant::now() + SAME_WITHIN;
        loop {
            let rounds = [self.quorum_hashes().await?, hasher::round(&self.context).await?];
            let is_whole = rounds.iter().all(|round| round.hashes.len() == members);
            if is_whole || Instant::now() > deadline {
                return Ok(rounds.to_vec());
            }
            sleep(RETRY).await;
        }
    }

    /// `/quorum/hash` of the members that are at the newest revision.
    async fn quorum_hashes(&self) -> anyhow::Result<Round> {
        let at = self.context.clock.now();
        let mut reported = Vec::new();
        for member in 0..self.context.layout.places.len() {
            let mut rest = Rest::new(self.context.layout.clone(), self.credentials.clone(), member);
            let answer = rest.request(http::Method::GET, "/quorum/hash", None, READ_DEADLINE).await;
            let (status, body) = answer.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
            let hash = body["hash"].as_str().with_context(|| format!("{status}: {body}"))?.to_owned();
            // JSON holds the revision as a number or as a string of digits.
            let revision = body["revision"].as_u64().or_else(|| body["revision"].as_str()?.parse().ok());
            reported.push((member, revision.with_context(|| format!("no revision in {body}"))?, hash));
        }
        let revision = reported.iter().map(|(_, revision, _)| *revision).max().unwrap_or(0);
        let newest = reported.into_iter().filter(|(_, at, _)| *at == revision);
        let hashes = newest.map(|(member, _, hash)| (member, hash)).collect();
        Ok(Round { at, of: "/quorum/hash".to_owned(), revision, hashes })
    }
}

/// All keys under a prefix at a revision, 0 for now.
async fn read_all(connection: &mut Connection, prefix: &str, revision: u64) -> anyhow::Result<Vec<Shown>> {
    let options = GetOptions::new().with_prefix().with_revision(i64::try_from(revision)?);
    let found = connection.client().await?.get(prefix, Some(options)).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = found.kvs().iter().map(|kv| {
        let revision = u64::try_from(kv.mod_revision()).unwrap_or(0);
        (text(kv.key()), text(kv.value()), revision)
    });
    Ok(shown.collect())
}
