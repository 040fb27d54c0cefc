//! The faults of a simulation and the recovery from them.

use std::sync::Arc;

use super::cluster::{Cluster, Shape};
use super::disk::SyncFault;
use super::evidence::Evidence;
use super::random::Random;
use crate::membership::MemberId;
use crate::platform::tokio::time::sleep;

/// Maximum number of attempts to start a member.
const MAX_STARTS: u32 = 30;

/// Injects one fault after the other. Several of these may run at the same time.
pub struct Faults {
    pub cluster: Arc<Cluster>,
    pub evidence: Arc<Evidence>,
    pub random: Random,
}

impl Faults {
    fn member(&mut self) -> MemberId {
        let ids: Vec<_> = self.cluster.ids().collect();
        ids[self.random.index(ids.len())]
    }

    /// Injects one fault for a while, then restarts all members that have ended.
    pub async fn inject(&mut self) {
        let member = self.member();
        let what = self.random.within(0..100);
        self.evidence.note(&("fault", what, member));
        match what {
            // A process is killed.
            0..16 => {
                self.cluster.end(member, false);
                sleep(self.random.millis(20..2500)).await;
            }
            // A machine loses its power.
            16..32 => {
                self.cluster.end(member, true);
                sleep(self.random.millis(20..2500)).await;
            }
            // All machines lose their power.
            32..40 => {
                for id in self.cluster.ids() {
                    self.cluster.end(id, true);
                }
                sleep(self.random.millis(20..500)).await;
            }
            // A process is stopped.
            40..56 => {
                self.cluster.stop(member);
                sleep(self.random.millis(50..3000)).await;
                self.cluster.resume(member);
            }
            // A member is cut off in both directions or in one.
            56..74 => {
                let direction = self.random.within(0..4);
                for other in self.cluster.ids().filter(|other| *other != member) {
                    let (one, another) = (self.cluster.name(member), self.cluster.name(other));
                    if direction != 0 {
                        self.cluster.network.cut(one, another);
                    }
                    if direction != 1 {
                        self.cluster.network.cut(another, one);
                    }
                }
                sleep(self.random.millis(100..3500)).await;
                self.cluster.network.restore_links();
            }
            // The link between two members is cut.
            74..80 => {
                let other = self.member();
                let (one, another) = (self.cluster.name(member), self.cluster.name(other));
                self.cluster.network.cut(one, another);
                self.cluster.network.cut(another, one);
                sleep(self.random.millis(100..3500)).await;
                self.cluster.network.restore_links();
            }
            // The quality of the network changes.
            80..86 => {
                let weather = Shape::weather(&mut self.random);
                self.cluster.network.set_weather(weather);
            }
            // A sync fails, or a process ends during one.
            86..94 => {
                let sync_fault = if self.random.percent(30) { SyncFault::Fails } else { SyncFault::Ends };
                self.cluster.set_sync_fault(member, Some(sync_fault));
                sleep(self.random.millis(20..500)).await;
                self.cluster.set_sync_fault(member, None);
                sleep(self.random.millis(0..500)).await;
            }
            // A machine is lost for good, and a new one replaces it.
            94..97 => {
                let cluster = self.cluster.clone();
                let Ok(_alone) = cluster.replacing.try_lock() else { return };
                // While a member is missing, another one may hold the last copy of an entry.
                if cluster.is_whole() {
                    cluster.lose(member, self.random.percent(50)).await;
                    sleep(self.random.millis(20..500)).await;
                }
            }
            // Leadership is transferred.
            _ => {
                let heir = self.member();
                let heir = self.cluster.member_id(heir);
                if let Some(life) = self.cluster.life(member) {
                    let asked = life.run(|store| async move { store.transfer_leadership(heir).await });
                    let asked = crate::platform::tokio::time::timeout(self.random.millis(100..200), asked).await;
                    self.evidence.note(&("asked to lead", heir, asked.is_ok()));
                }
            }
        }
        self.revive().await;
    }

    /// Starts all members that do not run.
    pub async fn revive(&mut self) {
        for id in self.cluster.ids() {
            // A start may fail through a fault as well.
            for _ in 0..MAX_STARTS {
                if self.cluster.life(id).is_some() {
                    break;
                }
                if self.cluster.has_ended(id) {
                    self.evidence.note(&("has ended by itself", id));
                    self.cluster.mark_ended(id, self.random.percent(70));
                }
                if !self.cluster.start(id).await {
                    if self.cluster.is_joining(id) {
                        // Joining may need the other members, which are started next.
                        break;
                    }
                    sleep(self.random.millis(10..100)).await;
                }
            }
        }
    }

    /// Ends all faults.
    pub async fn heal(&mut self) {
        self.evidence.note(&"heal");
        self.cluster.network.restore_links();
        self.cluster.network.set_weather(super::network::Weather { delay_micros: 100..2000, loss_percent: 0 });
        for id in self.cluster.ids() {
            self.cluster.set_sync_fault(id, None);
            self.cluster.resume(id);
        }
        for _ in 0..MAX_STARTS {
            self.revive().await;
            if self.cluster.ids().all(|id| self.cluster.life(id).is_some()) {
                break;
            }
            sleep(self.random.millis(100..300)).await;
        }
    }
}
