//! The setup of a machine as a part of a cluster: its addresses, its certificates, and the token with which it joins.

pub mod address;
mod client;
mod master;
mod upkeep;
mod worker;

pub use master::{Founding, Invitation, announce, prepare as prepare_master};
pub use upkeep::{Credentials, keep_master, keep_worker, publish_hosts};
pub use worker::prepare as prepare_worker;

use std::time::Duration;

use anyhow::Context;
use quorate_pki::{Details, PkiError, details, read};
use quorate_registry::pool::Pools;
use time::OffsetDateTime;

/// Names by which local clients and pods address an API server.
const API_NAMES: [&str; 7] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Returns the hosts that every API server's certificate holds, besides its own: those of local clients, and the names
/// and the address of the Service `default/kubernetes`, which pods use.
pub fn api_hosts(pools: &Pools) -> Vec<String> {
    let service = pools.default_block().map(|block| block.first_usable().to_string());
    API_NAMES.map(str::to_owned).into_iter().chain(service).collect()
}

/// Runs work before the process handles signals, so Ctrl-C ends it like any command.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the async runtime")?.block_on(work)
}

/// Reads the certificate in a file; `None` when there is no file.
fn certificate(path: &std::path::Path) -> Result<Option<Details>, PkiError> {
    if !path.exists() {
        return Ok(None);
    }
    details(read(path)?.as_bytes()).map(Some)
}

/// Returns whether a certificate has to be issued: it is missing, due for renewal, or not valid for all hosts.
pub fn is_due(path: &std::path::Path, hosts: &[String]) -> Result<bool, PkiError> {
    let found = certificate(path)?;
    Ok(found.is_none_or(|found| found.is_due(OffsetDateTime::now_utc()) || !found.covers(hosts)))
}

/// Returns the interval at which certificates with this lifetime are checked.
fn check_interval(lifetime: Duration) -> Duration {
    (lifetime / 30).clamp(Duration::from_millis(500), Duration::from_secs(600))
}
