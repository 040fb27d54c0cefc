//! What goes wrong in a simulation, and how it comes back.

use std::sync::Arc;

use super::cluster::{Cluster, Shape};
use super::disk::Trouble;
use super::evidence::Evidence;
use super::random::Random;
use crate::membership::MemberId;
use crate::platform::tokio::time::sleep;

/// A member that does not start by then is given up.
const MAX_STARTS: u32 = 30;

/// Does harm, one thing after the other or several at once.
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

    /// One fault, for a while, and then what is left of it.
    pub async fn strike(&mut self) {
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
            // All of them do.
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
                self.cluster.go_on(member);
            }
            // A member is cut off, or hears nothing, or is not heard.
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
                self.cluster.network.mend_all();
            }
            // Two members do not hear each other.
            74..80 => {
                let other = self.member();
                let (one, another) = (self.cluster.name(member), self.cluster.name(other));
                self.cluster.network.cut(one, another);
                self.cluster.network.cut(another, one);
                sleep(self.random.millis(100..3500)).await;
                self.cluster.network.mend_all();
            }
            80..86 => {
                let weather = Shape::weather(&mut self.random);
                self.cluster.network.set_weather(weather);
            }
            // A disk fails, or a process ends in the middle of a write.
            86..94 => {
                let trouble = if self.random.percent(30) { Trouble::Fails } else { Trouble::Ends };
                self.cluster.set_trouble(member, Some(trouble));
                sleep(self.random.millis(20..500)).await;
                self.cluster.set_trouble(member, None);
                sleep(self.random.millis(0..500)).await;
            }
            // A machine is lost for good, and another one takes its place.
            94..97 => {
                let cluster = self.cluster.clone();
                let Ok(_alone) = cluster.replacing.try_lock() else { return };
                // A second one may be the last that has something.
                if cluster.is_whole() {
                    cluster.lose(member, self.random.percent(50)).await;
                    sleep(self.random.millis(20..500)).await;
                }
            }
            // Somebody is asked to lead.
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

    /// Starts whoever does not run.
    pub async fn revive(&mut self) {
        for id in self.cluster.ids() {
            // A start may end early too.
            for _ in 0..MAX_STARTS {
                if self.cluster.life(id).is_some() {
                    break;
                }
                if self.cluster.has_ended(id) {
                    self.evidence.note(&("has ended by itself", id));
                    self.cluster.bury(id, self.random.percent(70));
                }
                if !self.cluster.start(id).await {
                    if self.cluster.is_joining(id) {
                        // For that it may need the others.
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
        self.cluster.network.mend_all();
        self.cluster.network.set_weather(super::network::Weather { delay_micros: 100..2000, loss_percent: 0 });
        for id in self.cluster.ids() {
            self.cluster.set_trouble(id, None);
            self.cluster.go_on(id);
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
