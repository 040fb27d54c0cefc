//! Turns of writes that change one object besides their own, such as a quota.
//!
//! The guard on that object lets one of several simultaneous writes pass and makes the others start again. Taking turns,
//! the writes of this member do not collide. Those of other members still may.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

/// Number of turns in a row after which other members get the chance to write.
const TURNS_IN_A_ROW: u32 = 16;
/// Time that they get. The member that leads learns the outcome of its writes first and would win each time.
const PAUSE: Duration = Duration::from_millis(10);

/// Number of turns taken since the queue was last empty.
type Taken = u32;

/// The queues of waiting writes, by the name of what they change.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queues: Mutex<HashMap<String, Weak<Queue<Taken>>>>,
}

/// A turn. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _taken: OwnedMutexGuard<Taken>,
}

impl Turns {
    /// Waits for the turn of this write, in the order of the calls.
    pub async fn take(&self, name: &str) -> Turn {
        let mut taken = self.queue(name).lock_owned().await;
        *taken = taken.wrapping_add(1);
        if taken.is_multiple_of(TURNS_IN_A_ROW) {
            tokio::time::sleep(PAUSE).await;
        }
        Turn { _taken: taken }
    }

    fn queue(&self, name: &str) -> Arc<Queue<Taken>> {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(name).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::default();
        queues.insert(name.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_given_to_one_write_at_a_time() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let mut second = std::pin::pin!(turns.take("a"));
        assert!(futures::poll!(&mut second).is_pending(), "the first turn is not over");
        drop(first);
        drop(second.await);
        drop(other);
        drop(turns.take("c").await);
        assert_eq!(turns.queues.lock().len(), 1, "queues without writes are dropped");
    }
}
