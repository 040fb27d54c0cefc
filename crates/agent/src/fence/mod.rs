//! Fences ([`quorate_api::fence`]): pods that this node stops when it has not reached the masters for too long, so that
//! they can run elsewhere.
//!
//! `ledger` decides and is pure. [`Fence`] holds the ledger and writes it to disk for the next agent and for the
//! watchdog (`watchdog`), a separate process that stops the containers when the agent cannot.

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
        Ok(Fence { ledger: Mutex::new(ledger), changed: watch::Sender::new(()), file, watchdog })
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
        if self.ledger.lock().pods.remove(uid).is_some()
            && let Err(error) = self.write().await
        {
            tracing::warn!(error = %error, "cannot write the ledger of the fences");
        }
    }

    /// Returns what is allowed with a pod now, and the time until that may change.
    pub(crate) fn leave(&self, uid: &str) -> (Leave, Option<Duration>) {
        let now = clock::now();
        let mut ledger = self.ledger.lock();
        match ledger.leave(uid, now) {
            None => (Leave::Run, None),
            Some(leave) => {
                // The margin makes sure that the fence has lapsed when the worker wakes.
                let until = ledger.next_lapse().map(|at| at.saturating_sub(now) + Duration::from_millis(10));
                (leave, until)
            }
        }
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
        // The watchdog must know the pod before any of its containers run.
        self.write().await.map_err(FenceError::Write)?;
        if let Some(watchdog) = &self.watchdog {
            watchdog.ensure_running().await.map_err(FenceError::Watchdog)?;
        }
        match self.leave(uid).0 {
            Leave::Run => Ok(()),
            Leave::Hold | Leave::Stop => Err(FenceError::NotConfirmed),
        }
    }

    /// Runs one renewal and notes its success. A renewal that takes too long does not count, because the time at which
    /// it took effect is unknown.
    pub(crate) async fn renew<E>(&self, renewal: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let sent = clock::now();
        let result = renewal.await;
        if result.is_ok() && clock::now().saturating_sub(sent) <= fence::RENEWAL_LIMIT {
            self.ledger.lock().renewed(sent);
        }
        if !self.ledger.lock().pods.is_empty() {
            if let Err(error) = self.write().await {
                tracing::warn!(error = %error, "cannot write the renewal to the ledger; the watchdog may stop fenced pods");
            }
            if let Some(watchdog) = &self.watchdog
                && let Err(error) = watchdog.ensure_running().await
            {
                tracing::warn!(error = %error, "the watchdog of the fences is not running");
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
