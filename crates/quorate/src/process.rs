//! The life of a long-running command: its runtime, and an orderly end on SIGINT and SIGTERM.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `service` until it ends by itself or a signal asks it to; a second signal ends the process at once.
pub fn run(service: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = CancellationToken::new();
        let mut asked = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        let mut service = std::pin::pin!(service(shutdown.clone()));
        tokio::select! {
            result = &mut service => return result,
            name = asked() => tracing::info!(signal = name, "stopping"),
        }
        shutdown.cancel();
        tokio::select! {
            result = service => result,
            name = asked() => Err(anyhow::anyhow!("a second signal ({name}) came before the orderly stop was done")),
        }
    })
}
