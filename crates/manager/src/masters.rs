//! Keeps the Service `default/kubernetes` and its endpoints: those masters that answered their leader a short while ago.

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
    /// The cluster IP of the Service.
    pub(crate) address: Option<IpAddr>,
    /// How long a master stays an endpoint that does not answer.
    pub(crate) forget_after: Duration,
}

/// What is known of the masters.
#[derive(Default)]
struct Known {
    /// When each master was seen alive, by the URL of its REST API.
    seen: HashMap<String, Instant>,
    /// The URLs that others cannot reach, as they were last reported.
    unreachable: BTreeSet<String>,
}

impl MasterService {
    pub(crate) async fn run(self, cancelled: CancellationToken) {
        let Some(address) = self.address else { return cancelled.cancelled().await };
        let keep = async {
            let mut known = Known::default();
            loop {
                self.look(address, &mut known).await;
                tokio::time::sleep(PERIOD).await;
            }
        };
        cancelled.run_until_cancelled(keep).await;
    }

    async fn look(&self, address: IpAddr, known: &mut Known) {
        match self.store.quorum_status().await {
            Ok(status) => known.observe(&status, Instant::now(), self.forget_after),
            Err(error) => tracing::debug!(%error, "the leader cannot tell which masters are alive"),
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
                tracing::debug!(%error, "the Service of the masters changed; looking again");
            }
            Err(error) => tracing::warn!(%error, "the Service of the masters cannot be kept; trying again"),
        }
    }
}

impl Known {
    /// Takes note of who answers, and forgets who has not for a while or is no member any more.
    fn observe(&mut self, status: &QuorumStatus, now: Instant, forget_after: Duration) {
        for member in status.members.iter().filter(|member| member.role != MemberRole::Unreachable) {
            self.seen.insert(member.member.api.clone(), now);
        }
        let is_member = |url: &String| status.members.iter().any(|member| member.member.api == *url);
        self.seen.retain(|url, seen| is_member(url) && now.duration_since(*seen) < forget_after);
    }

    /// The addresses of those who are alive, as far as others can reach them.
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
                "these masters are no endpoints of default/kubernetes: pods cannot reach their addresses"
            );
        }
        self.unreachable = unreachable;
        found
    }
}

/// The addresses of `https://host:port`.
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
