//! What makes a bare machine a part of a cluster: its addresses, its certificates, and the token that lets it in.

pub mod address;
mod client;
mod master;
mod upkeep;
mod worker;

pub use master::{Founding, announce, prepare as prepare_master};
pub use upkeep::{Credentials, keep_master, keep_worker};
pub use worker::prepare as prepare_worker;

use std::time::Duration;

use anyhow::Context;
use quorate_pki::{Details, PkiError, details, read};
use time::OffsetDateTime;

/// Runs what is done before the process takes its signals: Ctrl-C ends it as it ends any command.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the async runtime")?.block_on(work)
}

/// The certificate in a file; none when there is no file.
fn certificate(path: &std::path::Path) -> Result<Option<Details>, PkiError> {
    if !path.exists() {
        return Ok(None);
    }
    details(read(path)?.as_bytes()).map(Some)
}

/// Whether a certificate has to be made anew: it is missing, near its end, or does not hold for all hosts.
fn is_due(path: &std::path::Path, hosts: &[String]) -> Result<bool, PkiError> {
    let found = certificate(path)?;
    Ok(found.is_none_or(|found| found.is_due(OffsetDateTime::now_utc()) || !found.covers(hosts)))
}

/// How often certificates with this lifetime are looked at.
fn look_every(lifetime: Duration) -> Duration {
    (lifetime / 30).clamp(Duration::from_millis(500), Duration::from_secs(600))
}
