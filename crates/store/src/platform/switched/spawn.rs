//! Tasks and threads.

use std::io;

use crate::raft::simulation::process::{self, Process};

/// [`tokio_util::task::TaskTracker`] for real and simulated tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskTracker(tokio_util::task::TaskTracker);

impl TaskTracker {
    pub fn new() -> Self {
        TaskTracker::default()
    }

    pub fn spawn<F>(&self, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let tracked = self.0.track_future(future);
        if process::is_simulated() {
            // Without a current process, this code is left over from a process that was killed.
            if let Some(process) = Process::current() {
                process.spawn(async move { drop(tracked.await) });
            }
        } else {
            drop(tokio::spawn(tracked));
        }
    }

    pub fn close(&self) {
        self.0.close();
    }

    pub async fn wait(&self) {
        self.0.wait().await;
    }
}

/// [`std::thread::Builder`]. In a simulation, a thread's work runs synchronously in `spawn`.
#[derive(Debug)]
pub struct ThreadBuilder(std::thread::Builder);

impl ThreadBuilder {
    pub fn new() -> Self {
        ThreadBuilder(std::thread::Builder::new())
    }

    pub fn name(self, name: String) -> Self {
        ThreadBuilder(self.0.name(name))
    }

    pub fn spawn(self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        if process::is_simulated() {
            work();
            return Ok(());
        }
        self.0.spawn(work).map(drop)
    }
}
