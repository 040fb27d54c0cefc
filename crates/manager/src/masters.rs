//! The task that maintains the Service `default/kubernetes` and its endpoints: the masters that have recently answered
//! the leader.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_controllers::masters;
use quorate_store::{MemberRole, QuorumStatus, Store};
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

/// State of the masters, as the leader knows it.
#[derive(Default)]
struct Known {
    /// Time when each master was last seen alive, by the URL of its REST API.
    seen: HashMap<String, Instant>,
    /// URLs of the masters that pods cannot reach, as of the last log message.
    unreachable: BTreeSet<String>,
}

impl MasterService {
    pub(crate) async fn run(self, cancelled: CancellationToken) {
        let Some(address) = self.address else { return cancelled.cancelled().await };
        let keep = async {
            let mut known = Known::default();
            loop {
                self.reconcile(address, &mut known).await;
                tokio::time::sleep(PERIOD).await;
            }
        };
        cancelled.run_until_cancelled(keep).await;
    }

    async fn reconcile(&self, address: IpAddr, known: &mut Known) {
        match self.store.quorum_status().await {
            Ok(status) => known.observe(&status, Instant::now(), self.forget_after),
            Err(error) => tracing::debug!(%error, "the leader cannot determine which masters are alive"),
        }
        let masters = known.addresses().await;
        let plan = {
            let cache = self.cluster.cache();
            guard::catch("kubernetes-service", || masters::reconcile(&cache, address, &masters))
        };
        let Some(plan) = plan else { return };
        match self.executor.run(plan.actions).await {
            Ok(()) => {}
            Err(error) if error.is_stale() => {
                tracing::debug!(%error, "the Service of the masters changed meanwhile; retrying");
            }
            Err(error) => tracing::warn!(%error, "the Service of the masters cannot be updated; retrying"),
        }
    }
}

impl Known {
    /// Records the masters that answer, and drops those that have not answered for `forget_after` or are no longer
    /// members.
    fn observe(&mut self, status: &QuorumStatus, now: Instant, forget_after: Duration) {
        for member in status.members.iter().filter(|member| member.role != MemberRole::Unreachable) {
            self.seen.insert(member.member.api.clone(), now);
        }
        let is_member = |url: &String| status.members.iter().any(|member| member.member.api == *url);
        self.seen.retain(|url, seen| is_member(url) && now.duration_since(*seen) < forget_after);
    }

    /// Returns the addresses of the live masters that pods can reach.
    async fn addresses(&mut self) -> BTreeSet<SocketAddr> {
        let mut found = BTreeSet::new();
        let mut unreachable = BTreeSet::new();
        for url in self.seen.keys() {
            let addresses = resolve(url).await;
            let usable = addresses.iter().copied().find(|address| masters::is_reachable(address.ip()));
            match usable {
                Some(address) => {
                    found.insert(address);
                }
                None => {
                    unreachable.insert(url.clone());
                }
            }
        }
        if !unreachable.is_subset(&self.unreachable) {
            let urls = unreachable.iter().cloned().collect::<Vec<_>>().join(", ");
            tracing::info!(
                urls,
                "these masters are not endpoints of default/kubernetes, because pods cannot reach their addresses"
            );
        }
        self.unreachable = unreachable;
        found
    }
}

/// Resolves the addresses of `https://host:port`.
async fn resolve(url: &str) -> Vec<SocketAddr> {
    let Some(authority) = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/')) else {
        return Vec::new();
    };
    match tokio::net::lookup_host(authority).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::debug!(url, %error, "the address of a master cannot be resolved");
            Vec::new()
        }
    }
}
