//! The renewal of certificates while they are in use, without a restart.

use std::time::Duration;

use quorate_apiserver::Api;
use quorate_pki::{FileIdentity, Pair, PkiError};
use quorate_store::{Member, Store};
use tokio_util::sync::CancellationToken;

use super::{address, certificate, check_interval, master, worker};
use crate::config::{AgentConfig, ServerConfig};

const FIRST_CHECK: Duration = Duration::from_secs(30);
const PUBLISH_RETRY: Duration = Duration::from_secs(1);

/// Certificates that a process presents. They are reloaded when their files change.
#[derive(Debug)]
pub struct Credentials(Vec<FileIdentity>);

impl Credentials {
    /// # Errors
    /// Fails when a file cannot be read, or when a certificate and key do not belong together.
    pub fn load(pairs: impl IntoIterator<Item = Pair>) -> Result<Credentials, PkiError> {
        pairs.into_iter().map(FileIdentity::load).collect::<Result<_, _>>().map(Credentials)
    }

    /// Returns the identity at this index.
    pub fn live(&self, index: usize) -> std::sync::Arc<quorate_pki::LiveIdentity> {
        self.0[index].live()
    }

    fn refresh(&mut self) {
        for identity in &mut self.0 {
            let file = identity.pair().cert.display().to_string();
            match identity.refresh() {
                Ok(true) => tracing::info!(file, "new connections use the new certificate"),
                Ok(false) => {}
                // The certificate and key may be written one after the other, so the next refresh may succeed.
                Err(error) => tracing::warn!(file, error = chain(&error), "the old certificate stays in use"),
            }
        }
    }
}

fn chain(error: &PkiError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Refreshes the credentials on a blocking thread.
async fn refresh(mut credentials: Credentials) -> Option<Credentials> {
    let refreshed = tokio::task::spawn_blocking(move || {
        credentials.refresh();
        credentials
    });
    refreshed.await.ok()
}

/// Renews a master's certificates, uses them for new connections, and keeps the kubeconfig up to date.
pub async fn keep_master(
    config: ServerConfig,
    member: Member,
    mut credentials: Credentials,
    store: Store,
    shutdown: CancellationToken,
) {
    let every = master::check_interval(&config);
    let mut known = Vec::new();
    // Other masters may join soon after the start.
    let mut pause = every.min(FIRST_CHECK);
    while sleep(pause, &shutdown).await {
        pause = every;
        // The list may contain new masters or addresses since the last turn.
        let servers: Vec<String> = match store.quorum_status().await {
            Ok(status) => status.members.into_iter().map(|status| status.member.api).collect(),
            Err(_) => known.clone(),
        };
        let (turn, turn_member, turn_known) = (config.clone(), member.clone(), known.clone());
        let now_known = servers.clone();
        let turned = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let Some(own) = master::OwnCertificates::of_running(&turn, &turn_member)? else { return Ok(()) };
            if (own.renew()? || now_known != turn_known) && !now_known.is_empty() {
                own.write_kubeconfig(&turn, &now_known)?;
            }
            Ok(())
        });
        match turned.await {
            Ok(Ok(())) => known = servers,
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "the certificates could not be renewed"),
            Err(error) => tracing::error!(%error, "the task that renews the certificates failed"),
        }
        match refresh(credentials).await {
            Some(refreshed) => credentials = refreshed,
            None => return tracing::error!("the renewal of the certificates has ended"),
        }
    }
}

/// Publishes the hosts of this master's serving certificate to the other masters, which must not sign a certificate of a
/// worker for them, and the addresses of this machine. Repeats it when they change.
pub async fn publish_hosts(config: ServerConfig, api: Api, shutdown: CancellationToken) {
    let every = master::check_interval(&config);
    let mut failing = Failing::default();
    loop {
        let published = publish(&config, &api).await;
        let pause = if published.is_ok() { every } else { every.min(PUBLISH_RETRY) };
        match (failing.turn(published.is_err()), published) {
            (true, Err(error)) => {
                let error = format!("{error:#}");
                tracing::info!(error, "the hosts of this master are not published yet; retrying");
            }
            (true, Ok(())) => tracing::info!("the hosts of this master are published"),
            (false, _) => {}
        }
        if !sleep(pause, &shutdown).await {
            return;
        }
    }
}

/// Whether a repeated operation fails. Only the first failure and the recovery are logged.
#[derive(Debug, Default)]
struct Failing(bool);

impl Failing {
    /// Records an attempt. Returns whether its outcome differs from that of the previous one.
    fn turn(&mut self, has_failed: bool) -> bool {
        std::mem::replace(&mut self.0, has_failed) != has_failed
    }
}

async fn publish(config: &ServerConfig, api: &Api) -> anyhow::Result<()> {
    let cert = config.tls.cert.clone();
    let found = tokio::task::spawn_blocking(move || certificate(&cert)).await??;
    let hosts = found.map(|found| found.hosts).unwrap_or_default();
    let published = quorate_apiserver::publish_hosts(api, &config.name, &hosts, &address::all()?).await;
    published.map_err(|status| anyhow::anyhow!(status.message))
}

/// Renews a worker's certificates, and uses them for new connections.
pub async fn keep_worker(config: AgentConfig, mut credentials: Credentials, shutdown: CancellationToken) {
    let mut own = config.managed.is_some().then(|| worker::OwnCertificates::new(&config));
    loop {
        let lifetime = own.as_ref().and_then(|own| own.lifetime().ok().flatten());
        if !sleep(check_interval(lifetime.unwrap_or(Duration::from_secs(3600))), &shutdown).await {
            return;
        }
        if let Some(own) = &mut own
            && let Err(error) = own.maintain().await
        {
            tracing::warn!(error = format!("{error:#}"), "the certificates could not be checked or renewed; retrying");
        }
        match refresh(credentials).await {
            Some(refreshed) => credentials = refreshed,
            None => return tracing::error!("the renewal of the certificates has ended"),
        }
    }
}

/// Sleeps; returns `false` when it is time to stop.
async fn sleep(duration: Duration, shutdown: &CancellationToken) -> bool {
    shutdown.run_until_cancelled(tokio::time::sleep(duration)).await.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_and_the_recovery_are_logged() {
        let mut failing = Failing::default();
        let attempts = [false, true, true, true, false, false, true];
        let logged = attempts.map(|has_failed| failing.turn(has_failed));
        assert_eq!(logged, [false, true, false, false, true, false, true]);
    }
}
