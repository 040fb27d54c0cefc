//! The runtime of openraft: Tokio, or the simulation.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::OptionalSend;

use openraft::impls::TokioRuntime;
use openraft_rt_sim::{SimRuntime, SimWatch};
use tokio::sync::oneshot;

use super::tokio::time;
use crate::raft::simulation::process::{self, Process};

/// Either runtime. In both, its watch channel wakes waiters in the order in which they wait.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

/// Reason why a task has no result.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Real(#[from] tokio::task::JoinError),
    #[error("the task panicked, or its process was killed")]
    Lost,
}

pub enum JoinHandle<T> {
    Real(tokio::task::JoinHandle<T>),
    Simulated(oneshot::Receiver<T>),
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            JoinHandle::Real(handle) => Pin::new(handle).poll(context).map_err(JoinError::Real),
            JoinHandle::Simulated(result) => Pin::new(result).poll(context).map_err(|_| JoinError::Lost),
        }
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = time::Sleep;
    type Instant = time::Instant;
    type TimeoutError = time::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = time::Timeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = SimWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        if !process::is_simulated() {
            return JoinHandle::Real(tokio::spawn(future));
        }
        let (sender, result) = oneshot::channel();
        // Without a current process, this code is left over from a process that was killed.
        if let Some(process) = Process::current() {
            process.spawn(async move { drop(sender.send(future.await)) });
        }
        JoinHandle::Simulated(result)
    }

    fn sleep(duration: Duration) -> time::Sleep {
        time::sleep(duration)
    }

    fn sleep_until(deadline: time::Instant) -> time::Sleep {
        time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> time::Timeout<F> {
        time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: time::Instant, future: F) -> time::Timeout<F> {
        time::timeout_at(deadline, future)
    }

    fn is_panic(error: &JoinError) -> bool {
        matches!(error, JoinError::Real(error) if error.is_panic())
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        if process::is_simulated() {
            return SimRuntime::thread_rng();
        }
        SimRuntime::with_seed(rand::random()).block_on(async { SimRuntime::thread_rng() })
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
