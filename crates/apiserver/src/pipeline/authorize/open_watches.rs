//! The open watches that rest on a relation of a node to an object. They end when the relation does, because a watch is
//! authorized only once, when it starts. Upstream lets such a watch go on until it times out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_api::Revision;
use tokio::sync::watch;

use super::relations::NodeRelation;

/// The relations on which open watches rest.
#[derive(Default)]
pub(super) struct OpenWatches(Mutex<HashMap<NodeRelation, Group>>);

/// The watches that rest on one relation.
struct Group {
    revoked: watch::Sender<Option<Revision>>,
    watches: usize,
}

impl OpenWatches {
    pub(super) fn open(self: &Arc<Self>, relation: NodeRelation) -> WatchPermit {
        let mut groups = self.0.lock();
        let new = || Group { revoked: watch::Sender::new(None), watches: 0 };
        let group = groups.entry(relation.clone()).or_insert_with(new);
        group.watches += 1;
        WatchPermit { relation, revoked: group.revoked.subscribe(), open: Arc::clone(self) }
    }

    /// Revokes the permits that rest on these relations, which ended at a revision.
    pub(super) fn revoke(&self, ended: impl IntoIterator<Item = NodeRelation>, at: Revision) {
        let mut groups = self.0.lock();
        for relation in ended {
            if let Some(group) = groups.remove(&relation) {
                group.revoked.send_replace(Some(at));
            }
        }
    }

    /// Revokes the permits that rest on relations which no longer exist, as of a revision.
    pub(super) fn revoke_unless(&self, exists: impl Fn(&NodeRelation) -> bool, at: Revision) {
        self.0.lock().retain(|relation, group| {
            let exists = exists(relation);
            if !exists {
                group.revoked.send_replace(Some(at));
            }
            exists
        });
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// The permission of an open watch. Dropping it closes the watch's account.
pub(crate) struct WatchPermit {
    relation: NodeRelation,
    revoked: watch::Receiver<Option<Revision>>,
    open: Arc<OpenWatches>,
}

impl WatchPermit {
    /// Returns the revision at which the permission ended; `None` while it lasts.
    pub fn revoked_at(&self) -> Option<Revision> {
        *self.revoked.borrow()
    }

    /// Waits until the permission ends. Cancel-safe.
    pub async fn revoked(&mut self) -> Revision {
        match self.revoked.wait_for(Option::is_some).await.ok().and_then(|at| *at) {
            Some(at) => at,
            // The sender is dropped only after it has sent the revision.
            None => std::future::pending().await,
        }
    }
}

impl Drop for WatchPermit {
    fn drop(&mut self) {
        if self.revoked_at().is_some() {
            return;
        }
        let mut groups = self.open.0.lock();
        let Some(group) = groups.get_mut(&self.relation) else { return };
        // The permission may have ended just now, and another watch may have begun under a new one.
        if !self.revoked.same_channel(&group.revoked.subscribe()) {
            return;
        }
        group.watches -= 1;
        if group.watches == 0 {
            groups.remove(&self.relation);
        }
    }
}
