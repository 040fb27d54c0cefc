//! File calls that may never return, such as those on a network file system whose server is gone, or on a disk that
//! hangs. They run on a bounded
//! number of threads of their own, at most one for each path, so that no other part of the agent waits for them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

/// Maximum number of concurrent calls on paths of the node.
const CONCURRENT: usize = 32;
/// Maximum time of one call on a path of the node, including the wait for a thread.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct HostCalls {
    all: Arc<Semaphore>,
    by_path: Mutex<HashMap<PathBuf, Weak<Semaphore>>>,
    limit: Duration,
}

impl Default for HostCalls {
    fn default() -> Self {
        HostCalls::new(CONCURRENT, LIMIT)
    }
}

impl HostCalls {
    pub(crate) fn new(concurrent: usize, limit: Duration) -> Self {
        HostCalls { all: Arc::new(Semaphore::new(concurrent)), by_path: Mutex::default(), limit }
    }

    /// Runs `work`, which makes file calls on `path` of the node.
    ///
    /// # Errors
    /// `TimedOut` when `work` has not returned in time. Its thread is abandoned but counts against the limit until it
    /// returns.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let turn = self.turn(path);
        let all = Arc::clone(&self.all);
        let run = async move {
            let turn = turn.acquire_owned().await.map_err(io::Error::other)?;
            let permit = all.acquire_owned().await.map_err(io::Error::other)?;
            let (sender, done) = oneshot::channel();
            let call = move || {
                let _held = (turn, permit);
                // The caller may have given up.
                drop(sender.send(work()));
            };
            // The runtime's blocking threads are few, and it waits for them when it ends. A hung call would take one away.
            std::thread::Builder::new().name("host-call".to_owned()).spawn(call)?;
            done.await.map_err(|_| io::Error::other("a file call panicked"))
        };
        match tokio::time::timeout(self.limit, run).await {
            Ok(done) => done,
            Err(_) => {
                let message = format!("the file system did not answer within {:?}", self.limit);
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
        }
    }

    fn turn(&self, path: &Path) -> Arc<Semaphore> {
        let mut by_path = self.by_path.lock();
        by_path.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = by_path.get(path).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        by_path.insert(path.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// Runs file calls on the agent's own directory, which is on a local disk.
pub(crate) async fn local<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_hanging_path_takes_no_blocking_thread_of_the_runtime() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build().expect("a runtime");
        let (release, hung) = mpsc::channel::<()>();
        runtime.block_on(async {
            let calls = HostCalls::new(2, Duration::from_millis(100));
            let hang = calls.run(Path::new("/hangs"), move || hung.recv()).await;
            assert_eq!(hang.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
            let own = tokio::time::timeout(Duration::from_secs(60), local(|| 7)).await;
            assert_eq!(own.expect("the agent's own call is not blocked").expect("it returns"), 7);
        });
        drop(release);
    }

    #[tokio::test]
    async fn a_hanging_path_takes_one_thread_and_blocks_no_other_path() {
        let calls = HostCalls::new(2, Duration::from_millis(100));
        let (release, hung) = mpsc::channel::<()>();
        let hang = calls.run(Path::new("/hangs"), move || hung.recv()).await;
        assert_eq!(hang.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        let again = calls.run(Path::new("/hangs"), || ()).await.map_err(|error| error.kind());
        assert_eq!(again, Err(io::ErrorKind::TimedOut), "the second call waits for the first one");
        assert_eq!(calls.all.available_permits(), 1, "only the first call holds a thread");
        let answers = HostCalls { limit: Duration::from_secs(60), ..calls };
        assert_eq!(answers.run(Path::new("/answers"), || 7).await.expect("another path is not blocked"), 7);
        release.send(()).expect("the call waits");
        answers.run(Path::new("/hangs"), || ()).await.expect("the path answers again");
    }
}
