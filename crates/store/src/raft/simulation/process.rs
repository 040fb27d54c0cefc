//! A simulated process: tasks that are stopped, gone on with and killed together, and the disk that they write to.

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
/// Empty while it is polled, and when it is done.
type Slot = Arc<Mutex<Option<Task>>>;

/// One life of a process.
pub struct Process {
    pub name: String,
    disk: Arc<Disk>,
    random: Mutex<Random>,
    state: Mutex<State>,
    ended: CancellationToken,
    /// What it panicked with.
    panics: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct State {
    is_dead: bool,
    is_stopped: bool,
    next_task: u64,
    tasks: BTreeMap<u64, (Slot, Option<Waker>)>,
    /// Those that would run if it were not stopped.
    stalled: Vec<Waker>,
}

/// Whether this is a check of openraft's that only debug builds have, and that is wrong about a leader that has just been
/// succeeded: its stream may read what the successor writes over its log, before it sees that it leads no more and throws
/// that away. The range that it tells, `(T1-N1.9, T3-N3.7]`, then ends in a later term than it begins.
fn is_wrong_check(panic: &str) -> bool {
    let term = |log_id: &str| log_id.strip_prefix('T')?.split_once('-')?.0.parse::<u64>().ok();
    let ends = || {
        let (_, told) = panic.split_once("read_log_entries received reversed range")?;
        let (begin, end) = told.rsplit_once('(')?.1.split_once(", ")?;
        Some((term(begin)?, term(end)?))
    };
    ends().is_some_and(|(begin, end)| begin < end)
}

/// Unwinds a task whose process has ended.
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

    /// Whose task is running on this thread.
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

    /// Returns when it has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub fn is_stopped(&self) -> bool {
        self.state.lock().is_stopped
    }

    /// Starts a task of this process; nothing comes of it when that is dead.
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

    /// Stops it in its tracks, as a signal does; its clock goes on.
    pub fn stop(&self) {
        self.state.lock().is_stopped = true;
    }

    pub fn go_on(&self) {
        let stalled = {
            let mut state = self.state.lock();
            state.is_stopped = false;
            std::mem::take(&mut state.stalled)
        };
        stalled.into_iter().for_each(Waker::wake);
    }

    /// Ends it at once. Its disk remains as it is.
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

    /// Ends it from within.
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
        if is_wrong_check(&text) {
            return;
        }
        self.panics.lock().push(format!("{}: {text}", self.name));
    }
}

/// Makes a process the current one for a while.
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

/// A task in the hands of the runtime.
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
    fn a_stopped_process_does_nothing_and_a_killed_one_never_again() {
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
                process.go_on();
                assert_eq!(after(15).await, 5);
                process.spawn(async { Process::current().expect("itself").exit() });
                assert_eq!(after(100).await, 5);
                assert_eq!(Arc::strong_count(&ticks), 1, "the task is gone");
                assert!(panics.lock().is_empty());
            });
        });
    }

    #[test]
    fn only_a_range_that_ends_in_a_later_term_is_excused() {
        let told = |range: &str| {
            format!(
                "assertion `left == right` failed: read_log_entries received reversed range: start(10) > end(8), \
                 log_id_range: {range}\n  left: 10\n right: 8"
            )
        };
        assert!(is_wrong_check(&told("(T1-N1.9, T3-N3.7]")));
        assert!(!is_wrong_check(&told("(T3-N1.9, T3-N1.7]")));
        assert!(!is_wrong_check(&told("(T3-N1.9, None]")));
        assert!(!is_wrong_check("another one (T1-N1.9, T3-N3.7]"));
    }
}
