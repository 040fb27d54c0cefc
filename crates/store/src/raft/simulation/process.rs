//! A simulated process: tasks that are stopped, resumed and killed together, and the disk that they write to.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::random::Random;

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// Whether a simulation runs on this thread.
pub fn is_simulated() -> bool {
    SIMULATED.get()
}

/// Runs a simulation on this thread.
pub fn simulate<T>(work: impl FnOnce() -> T) -> T {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            SIMULATED.set(false);
        }
    }
    assert!(!SIMULATED.replace(true), "one at a time");
    let _guard = Guard;
    work()
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
/// A task of a process. `None` while it is polled and after it is done.
type Slot = Arc<Mutex<Option<Task>>>;

/// A process from its start to its end.
pub struct Process {
    pub name: String,
    disk: Arc<Disk>,
    random: Mutex<Random>,
    state: Mutex<State>,
    ended: CancellationToken,
    /// Messages of its panics.
    panics: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct State {
    is_dead: bool,
    is_stopped: bool,
    next_task: u64,
    tasks: BTreeMap<u64, (Slot, Option<Waker>)>,
    /// Wakers of tasks that are ready while the process is stopped.
    stalled: Vec<Waker>,
}

/// Whether a panic is a debug assertion of openraft that fails wrongly for a leader that was just replaced. The
/// leader's replication stream may read log entries that its successor is overwriting, before it notices that it lost
/// leadership and discards them. The range in the message, like `(T1-N1.9, T3-N3.7]`, then ends in a later term than it
/// begins.
fn is_false_assertion(panic: &str) -> bool {
    let term = |log_id: &str| log_id.strip_prefix('T')?.split_once('-')?.0.parse::<u64>().ok();
    let ends = || {
        let (_, range) = panic.split_once("read_log_entries received reversed range")?;
        let (begin, end) = range.rsplit_once('(')?.1.split_once(", ")?;
        Some((term(begin)?, term(end)?))
    };
    ends().is_some_and(|(begin, end)| begin < end)
}

/// Panic payload that unwinds a task whose process has ended.
struct Exited;

impl Process {
    pub fn new(name: String, disk: Arc<Disk>, random: Random, panics: Arc<Mutex<Vec<String>>>) -> Arc<Self> {
        Arc::new(Process {
            name,
            disk,
            random: Mutex::new(random),
            state: Mutex::default(),
            ended: CancellationToken::new(),
            panics,
        })
    }

    /// The process whose task is running on this thread.
    pub fn current() -> Option<Arc<Process>> {
        CURRENT.with_borrow(Clone::clone)
    }

    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    pub fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock()
    }

    pub fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    /// Waits until the process has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub fn is_stopped(&self) -> bool {
        self.state.lock().is_stopped
    }

    /// Starts a task of this process. A dead process drops it.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let slot: Slot = Arc::new(Mutex::new(Some(Box::pin(task))));
        let id = {
            let mut state = self.state.lock();
            if state.is_dead {
                return;
            }
            state.next_task += 1;
            let id = state.next_task;
            state.tasks.insert(id, (slot.clone(), None));
            id
        };
        drop(SimRuntime::spawn(Running { process: self.clone(), id, slot }));
    }

    /// Stops the process like SIGSTOP. Its clock keeps running.
    pub fn stop(&self) {
        self.state.lock().is_stopped = true;
    }

    pub fn resume(&self) {
        let stalled = {
            let mut state = self.state.lock();
            state.is_stopped = false;
            std::mem::take(&mut state.stalled)
        };
        stalled.into_iter().for_each(Waker::wake);
    }

    /// Ends the process immediately. Its disk stays as it is.
    pub fn kill(&self) {
        let tasks = {
            let mut state = self.state.lock();
            state.is_dead = true;
            state.stalled.clear();
            std::mem::take(&mut state.tasks)
        };
        let _nobody = Entered::new(None);
        for (slot, waker) in tasks.into_values() {
            let task = slot.lock().take();
            drop(task);
            waker.into_iter().for_each(Waker::wake);
        }
        self.ended.cancel();
    }

    /// Ends the process from one of its own tasks.
    pub fn exit(&self) -> ! {
        self.kill();
        resume_unwind(Box::new(Exited))
    }

    fn panicked(&self, payload: &(dyn Any + Send)) {
        if payload.is::<Exited>() {
            return;
        }
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        if is_false_assertion(&text) {
            return;
        }
        self.panics.lock().push(format!("{}: {text}", self.name));
    }
}

/// Guard that makes a process the current one until it is dropped.
struct Entered(Option<Arc<Process>>);

impl Entered {
    fn new(process: Option<Arc<Process>>) -> Self {
        Entered(CURRENT.replace(process))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// The future of a task that the runtime polls.
struct Running {
    process: Arc<Process>,
    id: u64,
    slot: Slot,
}

impl Future for Running {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.process.state.lock();
            if state.is_dead {
                return Poll::Ready(());
            }
            if state.is_stopped {
                state.stalled.push(context.waker().clone());
                return Poll::Pending;
            }
            if let Some((_, waker @ None)) = state.tasks.get_mut(&self.id) {
                *waker = Some(context.waker().clone());
            }
        }
        let Some(mut task) = self.slot.lock().take() else { return Poll::Ready(()) };
        let polled = {
            let _entered = Entered::new(Some(self.process.clone()));
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)))
        };
        let is_over = match polled {
            Ok(polled) => polled.is_ready(),
            Err(payload) => {
                self.process.panicked(&*payload);
                true
            }
        };
        if !is_over && !self.process.is_dead() {
            *self.slot.lock() = Some(task);
            return Poll::Pending;
        }
        let mut state = self.process.state.lock();
        state.tasks.remove(&self.id);
        let owner = (!state.is_dead).then(|| self.process.clone());
        drop(state);
        let _entered = Entered::new(owner);
        drop(task);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn stopped_processes_can_be_resumed_and_killed_ones_cannot() {
        simulate(|| {
            SimRuntime::with_seed(1).block_on(async {
                let panics = Arc::default();
                let process = Process::new("p".to_owned(), Arc::default(), Random::new(1), Arc::clone(&panics));
                let ticks = Arc::new(AtomicU64::new(0));
                let counter = ticks.clone();
                process.spawn(async move {
                    loop {
                        SimRuntime::sleep(Duration::from_millis(10)).await;
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let after = async |millis| {
                    SimRuntime::sleep(Duration::from_millis(millis)).await;
                    ticks.load(Ordering::Relaxed)
                };
                assert_eq!(after(35).await, 3);
                process.stop();
                assert_eq!(after(100).await, 3);
                process.resume();
                assert_eq!(after(15).await, 5);
                process.spawn(async { Process::current().expect("itself").exit() });
                assert_eq!(after(100).await, 5);
                assert_eq!(Arc::strong_count(&ticks), 1, "the task is gone");
                assert!(panics.lock().is_empty());
            });
        });
    }

    #[test]
    fn only_a_range_that_ends_in_a_later_term_is_ignored() {
        let panic = |range: &str| {
            format!(
                "assertion `left == right` failed: read_log_entries received reversed range: start(10) > end(8), \
                 log_id_range: {range}\n  left: 10\n right: 8"
            )
        };
        assert!(is_false_assertion(&panic("(T1-N1.9, T3-N3.7]")));
        assert!(!is_false_assertion(&panic("(T3-N1.9, T3-N1.7]")));
        assert!(!is_false_assertion(&panic("(T3-N1.9, None]")));
        assert!(!is_false_assertion("another one (T1-N1.9, T3-N3.7]"));
    }
}
