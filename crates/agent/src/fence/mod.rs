//! Fences ([`quorate_api::fence`]): pods that this node stops when it has not reached the masters for too long, so that
//! they can run elsewhere.
//!
//! `ledger` decides and is pure. [`Fence`] keeps it, on disk as well, for the next agent and for the watchdog
//! (`watchdog`): a process of its own that stops the containers when the agent cannot.

mod clock;
mod ledger;
mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use quorate_api::fence;
use tokio::sync::watch;

use ledger::Ledger;
use watchdog::Watchdog;
pub use watchdog::{Containers, WatchdogError, watch_containers};

use crate::config::AgentConfig;
use crate::plan::{self, Leave};

/// Why a fenced pod cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FenceError {
    #[error("the pod is fenced, and the masters have not confirmed that it still is this node's")]
    NotConfirmed,
    #[error("cannot write the fences down")]
    Write(#[source] io::Error),
    #[error("the watchdog of the fences does not run")]
    Watchdog(#[source] io::Error),
}

/// The fenced pods of this node.
pub(crate) struct Fence {
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
    /// Where the ledger is written; one writer at a time. `None` on a hollow node, whose pods end with the agent.
    file: Option<tokio::sync::Mutex<PathBuf>>,
    watchdog: Option<Watchdog>,
}

impl Fence {
    /// Takes over what an agent before this one has left.
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
            // Nothing of another start of the machine runs any more.
            Some(Ok(_)) | None => Ledger::default(),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Some(Err(error)) => {
                tracing::warn!(error = %error, "the fences of before cannot be read; what is fenced starts anew");
                Ledger::default()
            }
        };
        ledger.boot_id = boot_id;
        let file = file.map(tokio::sync::Mutex::new);
        Ok(Fence { ledger: Mutex::new(ledger), changed: watch::Sender::new(()), file, watchdog })
    }

    /// Whether fences hold even if this process dies: the masters rely on them only then.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_none() || self.watchdog.is_some()
    }

    /// Wakes whenever what is allowed may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes note of a pod of this node, and says whether it has a fence.
    pub(crate) fn add(&self, pod: &Pod) -> bool {
        let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(fence::ANNOTATION));
        let Some(after) = annotation.and_then(|value| fence::parse(value).ok().flatten()) else { return false };
        let grace = Duration::from_secs(u64::try_from(plan::grace_seconds(pod)).unwrap_or(1));
        self.ledger.lock().add(&plan::pod_ref(pod).uid, after, grace);
        true
    }

    /// Nothing of the pod is left on this node.
    pub(crate) async fn forget(&self, uid: &str) {
        if self.ledger.lock().pods.remove(uid).is_some()
            && let Err(error) = self.write().await
        {
            tracing::warn!(error = %error, "the fences cannot be written down");
        }
    }

    /// What is allowed with a pod now, and how long at most it stays so.
    pub(crate) fn leave(&self, uid: &str) -> (Leave, Option<Duration>) {
        let now = clock::now();
        let mut ledger = self.ledger.lock();
        match ledger.leave(uid, now) {
            None => (Leave::Run, None),
            Some(leave) => {
                // A little later, so that the lapse has happened.
                let until = ledger.next_lapse().map(|at| at.saturating_sub(now) + Duration::from_millis(10));
                (leave, until)
            }
        }
    }

    /// As the ledger's `ask`.
    pub(crate) fn ask(&self, uid: &str) -> Option<u64> {
        self.ledger.lock().ask(uid, clock::now())
    }

    /// As the ledger's `confirm`.
    pub(crate) fn confirm(&self, uid: &str, asked: u64) {
        self.ledger.lock().confirm(uid, asked, clock::now());
        self.changed.send_replace(());
    }

    /// To be called right before anything of a pod is started.
    pub(crate) async fn admit(&self, uid: &str) -> Result<(), FenceError> {
        if !self.ledger.lock().pods.contains_key(uid) {
            return Ok(());
        }
        // The watchdog must know the pod before there is anything to stop.
        self.write().await.map_err(FenceError::Write)?;
        if let Some(watchdog) = &self.watchdog {
            watchdog.ensure_running().await.map_err(FenceError::Watchdog)?;
        }
        match self.leave(uid).0 {
            Leave::Run => Ok(()),
            Leave::Hold | Leave::Stop => Err(FenceError::NotConfirmed),
        }
    }

    /// Runs one renewal and notes its success. One that takes too long does not count, since nobody knows when it
    /// took effect.
    pub(crate) async fn renew<E>(&self, renewal: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let sent = clock::now();
        let result = renewal.await;
        if result.is_ok() && clock::now().saturating_sub(sent) <= fence::RENEWAL_LIMIT {
            self.ledger.lock().renewed(sent);
        }
        if !self.ledger.lock().pods.is_empty() {
            if let Err(error) = self.write().await {
                tracing::warn!(error = %error, "the renewal cannot be written down; the watchdog may stop fenced pods");
            }
            if let Some(watchdog) = &self.watchdog
                && let Err(error) = watchdog.ensure_running().await
            {
                tracing::warn!(error = %error, "the watchdog of the fences does not run");
            }
        }
        self.changed.send_replace(());
        result
    }

    async fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = file.lock().await;
        let ledger = serde_json::to_vec(&*self.ledger.lock()).map_err(io::Error::other)?;
        let new = path.with_extension("new");
        tokio::fs::write(&new, ledger).await?;
        tokio::fs::rename(&new, &*path).await
    }
}

fn read(file: &Path) -> io::Result<Ledger> {
    serde_json::from_slice(&std::fs::read(file)?).map_err(io::Error::other)
}
