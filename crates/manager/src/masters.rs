//! The task that maintains the Service `default/kubernetes` and its endpoints: it asks the store which masters answer,
//! looks up their addresses, and executes what `quorate_controllers::masters` decides.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_controllers::masters;
use quorate_controllers::masters::liveness::Liveness;
use quorate_store::{MemberRole, Store};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::controllers::Executor;
use crate::guard;

const PERIOD: Duration = Duration::from_secs(2);

pub(crate) struct MasterService {
    pub(crate) store: Store,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) executor: Executor,
    /// Cluster IP of the Service; `None` disables the task.
    pub(crate) address: Option<IpAddr>,
    /// Time that a master which does not answer stays an endpoint.
    pub(crate) forget_after: Duration,
}

impl MasterService {
    pub(crate) async fn run(self, cancelled: CancellationToken) {
        let Some(address) = self.address else { return cancelled.cancelled().await };
        let keep = async {
            let (mut liveness, started) = (Liveness::new(self.forget_after), Instant::now());
            let mut reported = BTreeSet::new();
            loop {
                self.observe(&mut liveness, started.elapsed()).await;
                report_unreachable(&liveness, &mut reported);
                self.reconcile(address, &liveness).await;
                tokio::time::sleep(PERIOD).await;
            }
        };
        cancelled.run_until_cancelled(keep).await;
    }

    async fn observe(&self, liveness: &mut Liveness, now: Duration) {
        match self.store.quorum_status().await {
            Ok(status) => {
                let members = status.members.iter();
                let answers = members.map(|m| (m.member.api.as_str(), m.role != MemberRole::Unreachable));
                liveness.observe(answers, now);
            }
            Err(error) => tracing::debug!(%error, "the leader cannot determine which masters are alive"),
        }
        for url in liveness.urls() {
            match resolve(&url).await {
                Ok(addresses) => liveness.resolved(&url, addresses),
                Err(error) => tracing::debug!(url, %error, "the address of a master cannot be resolved"),
            }
        }
    }

    async fn reconcile(&self, address: IpAddr, liveness: &Liveness) {
        let plan = {
            let cache = self.cluster.cache();
            guard::catch("kubernetes-service", || {
                let masters = liveness.endpoints(&masters::present(&cache))?;
                Some(masters::reconcile(&cache, address, &masters))
            })
        };
        let Some(plan) = plan.flatten() else { return };
        match self.executor.run(plan.actions).await {
            Ok(()) => {}
            Err(error) if error.is_stale() => {
                tracing::debug!(%error, "the Service of the masters changed meanwhile; retrying");
            }
            Err(error) => tracing::warn!(%error, "the Service of the masters cannot be updated; retrying"),
        }
    }
}

/// Logs masters that pods cannot reach, when there are others than in the last message.
fn report_unreachable(liveness: &Liveness, reported: &mut BTreeSet<String>) {
    let unreachable: BTreeSet<String> = liveness.unreachable().into_iter().map(str::to_owned).collect();
    if !unreachable.is_subset(reported) {
        let urls = unreachable.iter().cloned().collect::<Vec<_>>().join(", ");
        tracing::info!(
            urls,
            "these masters are not endpoints of default/kubernetes, because pods cannot reach their addresses"
        );
    }
    *reported = unreachable;
}

/// Resolves the addresses of `https://host:port`. A URL of another form has none.
async fn resolve(url: &str) -> io::Result<Vec<SocketAddr>> {
    let Some(authority) = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/')) else {
        return Ok(Vec::new());
    };
    Ok(tokio::net::lookup_host(authority).await?.collect())
}
