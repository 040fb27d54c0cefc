//! The process of a long-running command: its runtime, and a graceful shutdown on SIGINT and SIGTERM.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `service` until it ends by itself or a signal requests a shutdown. A second signal ends the process at once. At
/// most `blocking_threads` threads run blocking calls; each one keeps memory even after its end.
pub fn run(
    blocking_threads: usize,
    service: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(blocking_threads)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
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
            name = asked() => Err(anyhow::anyhow!("a second signal ({name}) arrived before the shutdown was complete")),
        }
    })
}
