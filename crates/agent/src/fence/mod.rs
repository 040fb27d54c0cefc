//! Fences ([`quorate_api::fence`]): pods that this node stops when it has not reached the masters for too long, so that
//! they can run elsewhere.
//!
//! `ledger` decides and is pure. [`Fence`] holds the ledger and writes it to disk for the next agent and for the
//! watchdog (`watchdog`), a separate process that stops the containers when the agent cannot. `takeover` decides for the
//! watchdog and is pure. `marks` records which containers either of them has stopped.

mod clock;
mod ledger;
mod marks;
mod takeover;
mod watchdog;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use quorate_api::fence;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use ledger::{Ledger, Verdict};
use watchdog::Watchdog;
pub use watchdog::{AGENT_LOCK_FILE, Containers, WatchdogError, watch_containers};

use crate::blocking::HostCalls;
use crate::config::AgentConfig;
use crate::plan::{self, FenceVerdict};

/// Maximum time of one access to the files of the fences. A disk that takes longer must not delay a stop.
const DISK_LIMIT: Duration = Duration::from_millis(500);
/// Maximum number of concurrent accesses to these files.
const DISK_CALLS: usize = 8;
/// Maximum time for which a renewal may be missing in the file. Further renewals do not count, because the watchdog does
/// not know them.
const UNWRITTEN_LIMIT: Duration = Duration::from_secs(4);

/// Why a fenced pod cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FenceError {
    #[error("the pod is fenced, and the masters have not confirmed that it is still this node's")]
    NotConfirmed,
    #[error("cannot write the ledger of the fences")]
    Write(#[source] io::Error),
    #[error("the watchdog of the fences is not running")]
    Watchdog(#[source] io::Error),
}

/// The fenced pods of this node.
pub(crate) struct Fence {
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
    /// A renewal has not been written to the file yet.
    unwritten: Notify,
    /// The time of the earliest renewal that has not been written.
    unwritten_since: Mutex<Option<Duration>>,
    data_dir: PathBuf,
    disk: HostCalls,
    /// The file of the ledger, locked by its writer. `None` on a hollow node.
    file: Option<tokio::sync::Mutex<PathBuf>>,
    watchdog: Option<Watchdog>,
}

impl Fence {
    /// Takes over the ledger of the agent before this one.
    pub(crate) fn open(config: &AgentConfig, is_hollow: bool) -> io::Result<Fence> {
        let (file, watchdog) = if is_hollow {
            (None, None)
        } else {
            let file = config.data_dir.join("fences.json");
            let watchdog = config.watchdog.as_ref().map(|command| Watchdog::new(command, &file, config));
            (Some(file), watchdog.transpose()?)
        };
        let boot_id = clock::boot_id()?;
        let mut ledger = match file.as_deref().map(read) {
            Some(Ok(ledger)) if ledger.boot_id == boot_id => ledger,
            // The pods of an earlier boot have ended with it.
            Some(Ok(_)) | None => Ledger::default(),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Some(Err(error)) => {
                tracing::warn!(error = %error, "cannot read the ledger of the fences; starting with an empty one");
                Ledger::default()
            }
        };
        ledger.boot_id = boot_id;
        let file = file.map(tokio::sync::Mutex::new);
        Ok(Fence {
            ledger: Mutex::new(ledger),
            changed: watch::Sender::new(()),
            unwritten: Notify::new(),
            unwritten_since: Mutex::default(),
            disk: HostCalls::new(DISK_CALLS, DISK_LIMIT),
            data_dir: config.data_dir.clone(),
            file,
            watchdog,
        })
    }

    /// Writes the renewals for the watchdog and keeps it running, until `shutdown`. The heartbeat waits for neither.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.unwritten.notified() => {}
            }
            if let Err(error) = self.write().await {
                tracing::warn!(error = %error, "cannot write the renewal to the ledger; the watchdog may stop fenced pods");
            }
            if let Some(watchdog) = &self.watchdog
                && let Err(error) = watchdog.ensure_running().await
            {
                tracing::warn!(error = %error, "the watchdog of the fences is not running");
            }
        }
    }

    /// Whether fences hold even if this process dies. The masters rely on them only then.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_none() || self.watchdog.is_some()
    }

    /// Notifies whenever a fence may allow more or less than before.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Adds a pod of this node if it has a fence, and returns whether it has one.
    pub(crate) fn add(&self, pod: &Pod) -> bool {
        let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(fence::ANNOTATION));
        let Some(after) = annotation.and_then(|value| fence::parse(value).ok().flatten()) else { return false };
        let grace = Duration::from_secs(u64::try_from(plan::grace_seconds(pod)).unwrap_or(1));
        self.ledger.lock().add(&plan::pod_ref(pod).uid, after, grace);
        true
    }

    /// Removes a pod of which nothing is left on this node.
    pub(crate) async fn forget(&self, uid: &str) {
        self.retain(|pod| pod != uid).await;
    }

    /// Removes all pods but those that `keeps` returns true for, by uid.
    pub(crate) async fn retain(&self, keeps: impl Fn(&str) -> bool) {
        if self.ledger.lock().retain(keeps)
            && let Err(error) = self.write().await
        {
            tracing::warn!(error = %error, "cannot write the ledger of the fences");
        }
    }

    /// Returns what is allowed with a pod now, and the time until that may change.
    pub(crate) fn verdict(&self, uid: &str) -> (FenceVerdict, Option<Duration>) {
        let now = clock::now();
        let mut ledger = self.ledger.lock();
        let verdict = match ledger.verdict(uid, now) {
            None => return (FenceVerdict::Run, None),
            Some(Verdict::Run) => FenceVerdict::Run,
            Some(Verdict::Hold) => FenceVerdict::Hold,
            Some(Verdict::Stop { lapsed_at }) => FenceVerdict::Stop { lapsed_at: ago(now.saturating_sub(lapsed_at)) },
        };
        // The margin makes sure that the fence has lapsed when the worker wakes.
        let until = ledger.next_lapse().map(|at| at.saturating_sub(now) + Duration::from_millis(10));
        (verdict, until)
    }

    /// Returns when the pod's fence has lapsed, while the masters have not confirmed the pod since. `None` if no renewal
    /// before the lapse is known.
    pub(crate) fn lapsed_at(&self, uid: &str) -> Option<Timestamp> {
        let now = clock::now();
        self.ledger.lock().lapsed_at(uid, now).map(|at| ago(now.saturating_sub(at)))
    }

    /// Records that the fence stops this container, so that no later agent takes its exit for a success. Must be called
    /// before the stop, and ends within [`DISK_LIMIT`].
    pub(crate) async fn mark(&self, uid: &str, id: &str) -> io::Result<()> {
        let path = marks::dir(&self.data_dir, uid).join(id);
        let (data_dir, uid, ids) = (self.data_dir.clone(), uid.to_owned(), [id.to_owned()]);
        self.disk.run(&path, move || marks::add(&data_dir, &uid, &ids)).await?
    }

    /// Returns the ids of the containers that the agent or the watchdog has begun to stop because of the pod's fence, and
    /// when it began. Ends within [`DISK_LIMIT`].
    pub(crate) async fn marked(&self, uid: &str) -> io::Result<BTreeMap<String, Timestamp>> {
        let path = marks::dir(&self.data_dir, uid);
        let (data_dir, uid) = (self.data_dir.clone(), uid.to_owned());
        self.disk.run(&path, move || marks::of(&data_dir, &uid)).await?
    }

    /// See [`Ledger::ask`].
    pub(crate) fn ask(&self, uid: &str) -> Option<u64> {
        self.ledger.lock().ask(uid, clock::now())
    }

    /// See [`Ledger::confirm`].
    pub(crate) fn confirm(&self, uid: &str, asked: u64) {
        self.ledger.lock().confirm(uid, asked, clock::now());
        self.changed.send_replace(());
    }

    /// Checks that a pod may be started. Must be called right before anything of it is started.
    pub(crate) async fn admit(&self, uid: &str) -> Result<(), FenceError> {
        if !self.ledger.lock().pods.contains_key(uid) {
            return Ok(());
        }
        if self.file.is_some() {
            // On a full disk an empty file can still be made in a directory that exists.
            tokio::fs::create_dir_all(marks::dir(&self.data_dir, uid)).await.map_err(FenceError::Write)?;
        }
        // The watchdog must know the pod before any of its containers run.
        self.write().await.map_err(FenceError::Write)?;
        if let Some(watchdog) = &self.watchdog {
            watchdog.ensure_running().await.map_err(FenceError::Watchdog)?;
        }
        match self.verdict(uid).0 {
            FenceVerdict::Run => Ok(()),
            FenceVerdict::Hold | FenceVerdict::Stop { .. } => Err(FenceError::NotConfirmed),
        }
    }

    /// Runs one renewal and notes its success. A renewal that takes too long does not count, because the time at which
    /// it took effect is unknown. Renewals do not count either while the file lacks an earlier one for too long.
    pub(crate) async fn renew<E>(&self, renewal: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let sent = clock::now();
        let result = renewal.await;
        let now = clock::now();
        let has_pods = !self.ledger.lock().pods.is_empty();
        let mut unwritten_since = self.unwritten_since.lock();
        if !has_pods || self.file.is_none() {
            *unwritten_since = None;
        }
        let is_written = unwritten_since.is_none_or(|since| now.saturating_sub(since) <= UNWRITTEN_LIMIT);
        if result.is_ok() && now.saturating_sub(sent) <= fence::RENEWAL_LIMIT && is_written {
            self.ledger.lock().renewed(sent);
        }
        if has_pods {
            if self.file.is_some() {
                unwritten_since.get_or_insert(now);
            }
            self.unwritten.notify_one();
        }
        drop(unwritten_since);
        self.changed.send_replace(());
        result
    }

    async fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = file.lock().await;
        let begun = clock::now();
        let (ledger, written) = {
            let ledger = self.ledger.lock();
            (serde_json::to_vec(&*ledger).map_err(io::Error::other)?, ledger.renewed)
        };
        let new = path.with_extension("new");
        tokio::fs::write(&new, ledger).await?;
        tokio::fs::rename(&new, &*path).await?;
        let mut unwritten_since = self.unwritten_since.lock();
        *unwritten_since = unwritten_since.filter(|_| self.ledger.lock().renewed != written).map(|_| begun);
        Ok(())
    }
}

/// Returns the wall clock's time this long ago.
fn ago(time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    Timestamp::now().saturating_sub(time).unwrap_or(Timestamp::MIN)
}

fn read(file: &Path) -> io::Result<Ledger> {
    serde_json::from_slice(&std::fs::read(file)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn fence(dir: &Path) -> Fence {
        Fence {
            ledger: Mutex::default(),
            changed: watch::Sender::new(()),
            unwritten: Notify::new(),
            unwritten_since: Mutex::default(),
            disk: HostCalls::new(DISK_CALLS, DISK_LIMIT),
            data_dir: dir.to_owned(),
            file: Some(tokio::sync::Mutex::new(dir.join("fences.json"))),
            watchdog: None,
        }
    }

    async fn renew(fence: &Fence) {
        fence.renew(std::future::ready(Ok::<(), ()>(()))).await.expect("the renewal succeeds");
    }

    #[tokio::test]
    async fn a_renewal_does_not_wait_for_the_disk_or_the_watchdog() {
        let dir = tempfile::tempdir().expect("a directory");
        let fence = fence(dir.path());
        fence.ledger.lock().add("p", Duration::from_secs(10), Duration::ZERO);
        let writer = fence.file.as_ref().expect("a file").lock().await;
        assert!(renew(&fence).now_or_never().is_some(), "the disk hangs, and the renewal waits for it");
        drop(writer);
        assert!(fence.ledger.lock().renewed.is_some(), "the renewal counts");
    }

    #[tokio::test]
    async fn renewals_that_the_watchdog_does_not_learn_of_stop_counting() {
        let dir = tempfile::tempdir().expect("a directory");
        let fence = fence(dir.path());
        fence.ledger.lock().add("p", Duration::from_secs(10), Duration::ZERO);
        renew(&fence).await;
        let counted = fence.ledger.lock().renewed.expect("the first one counts");
        let long_ago = clock::now().saturating_sub(UNWRITTEN_LIMIT + Duration::from_millis(1));
        *fence.unwritten_since.lock() = Some(long_ago);
        renew(&fence).await;
        assert_eq!(fence.ledger.lock().renewed, Some(counted), "the file lacks the first one");
        fence.write().await.expect("written");
        renew(&fence).await;
        assert!(fence.ledger.lock().renewed > Some(counted), "the disk answers again");
    }

    #[tokio::test]
    async fn a_mark_does_not_wait_for_a_disk_that_hangs() {
        let dir = tempfile::tempdir().expect("a directory");
        let fence = fence(dir.path());
        marks::prepare(dir.path(), "p").expect("prepared");
        // Opening a pipe without a reader blocks.
        let pipe = marks::dir(dir.path(), "p").join("main");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let marked = tokio::time::timeout(Duration::from_secs(60), fence.mark("p", "main")).await;
        let error = marked.expect("it returns").expect_err("the disk hangs");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        std::fs::File::options().read(true).write(true).open(&pipe).expect("the writer is released");
    }

    #[tokio::test]
    async fn renewals_are_written_for_the_watchdog() {
        let dir = tempfile::tempdir().expect("a directory");
        let fence = fence(dir.path());
        fence.ledger.lock().add("p", Duration::from_secs(10), Duration::ZERO);
        renew(&fence).await;
        let shutdown = CancellationToken::new();
        let written = async {
            while read(&dir.path().join("fences.json")).ok().and_then(|ledger| ledger.renewed).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shutdown.cancel();
        };
        let both = futures::future::join(fence.keep(shutdown.clone()), written);
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("the renewal is written");
    }

    #[tokio::test]
    async fn pods_that_are_not_kept_leave_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let fence = fence(dir.path());
        for uid in ["here", "vanished"] {
            fence.ledger.lock().add(uid, Duration::from_secs(10), Duration::ZERO);
        }
        fence.write().await.expect("written");
        fence.retain(|uid| uid == "here").await;
        let ledger = read(&dir.path().join("fences.json")).expect("a ledger");
        assert_eq!(ledger.pods.keys().collect::<Vec<_>>(), ["here"]);
    }
}
