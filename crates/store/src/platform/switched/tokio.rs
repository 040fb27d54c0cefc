//! Tokio, except for the parts that a simulation replaces.

pub use ::tokio::*;

/// Tokio's `select!`, which always polls its branches in order.
macro_rules! ordered_select {
    (biased; $($branches:tt)*) => { ::tokio::select! { biased; $($branches)* } };
    ($($branches:tt)*) => { ::tokio::select! { biased; $($branches)* } };
}
pub(crate) use ordered_select as select;

pub mod sync {
    pub use ::tokio::sync::*;

    pub use crate::platform::switched::watch;
}

pub mod task {
    pub use ::tokio::task::*;

    use crate::raft::simulation::process;

    /// Runs blocking work. In a simulation, it runs synchronously.
    pub async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        if process::is_simulated() {
            return Ok(work());
        }
        ::tokio::task::spawn_blocking(work).await
    }
}

pub mod time {
    use std::ops::{Add, AddAssign, Sub, SubAssign};
    use std::pin::Pin;
    use std::sync::LazyLock;
    use std::time::Duration;

    use openraft::AsyncRuntime;
    use openraft_rt_sim::{SimInstant, SimRuntime};

    pub use ::tokio::time::MissedTickBehavior;

    use crate::raft::simulation::process;

    /// Offset of all times of either clock, so that earlier times can be represented too.
    const BEFORE: Duration = Duration::from_secs(1 << 30);
    static START: LazyLock<::tokio::time::Instant> = LazyLock::new(::tokio::time::Instant::now);

    /// A time of the simulation's clock, or of the system's.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Instant(Duration);

    impl Instant {
        pub fn now() -> Self {
            let elapsed = match SimInstant::try_now() {
                Some(now) if process::is_simulated() => now.elapsed_since_start(),
                _ => START.elapsed(),
            };
            Instant(BEFORE + elapsed)
        }

        pub fn elapsed(&self) -> Duration {
            Instant::now().saturating_duration_since(*self)
        }

        pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Instant;

        fn add(self, duration: Duration) -> Instant {
            Instant(self.0 + duration)
        }
    }

    impl AddAssign<Duration> for Instant {
        fn add_assign(&mut self, duration: Duration) {
            self.0 += duration;
        }
    }

    impl Sub<Duration> for Instant {
        type Output = Instant;

        fn sub(self, duration: Duration) -> Instant {
            Instant(self.0 - duration)
        }
    }

    impl SubAssign<Duration> for Instant {
        fn sub_assign(&mut self, duration: Duration) {
            self.0 -= duration;
        }
    }

    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, earlier: Instant) -> Duration {
            self.saturating_duration_since(earlier)
        }
    }

    impl openraft::Instant for Instant {
        fn now() -> Self {
            Instant::now()
        }
    }

    pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

    pub fn sleep(duration: Duration) -> Sleep {
        if process::is_simulated() {
            return Box::pin(SimRuntime::sleep(duration));
        }
        Box::pin(::tokio::time::sleep(duration))
    }

    pub fn sleep_until(deadline: Instant) -> Sleep {
        if process::is_simulated() {
            return sleep(deadline - Instant::now());
        }
        Box::pin(::tokio::time::sleep_until(*START + (deadline.0 - BEFORE)))
    }

    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("deadline has elapsed")]
    pub struct Elapsed;

    pub type Timeout<T> = Pin<Box<Timed<T>>>;

    /// A future and its deadline.
    pub struct Timed<T> {
        future: Pin<Box<T>>,
        deadline: Sleep,
    }

    impl<T: Future> Future for Timed<T> {
        type Output = Result<T::Output, Elapsed>;

        fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
            use std::task::Poll;
            if let Poll::Ready(output) = self.future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            self.deadline.as_mut().poll(context).map(|()| Err(Elapsed))
        }
    }

    pub fn timeout<T: Future>(duration: Duration, future: T) -> Timeout<T> {
        Box::pin(Timed { future: Box::pin(future), deadline: sleep(duration) })
    }

    pub fn timeout_at<T: Future>(deadline: Instant, future: T) -> Timeout<T> {
        Box::pin(Timed { future: Box::pin(future), deadline: sleep_until(deadline) })
    }

    /// Ticks with a fixed period. After a late tick, the next one follows a full period later.
    #[derive(Debug)]
    pub struct Interval {
        next: Instant,
        period: Duration,
    }

    pub fn interval(period: Duration) -> Interval {
        Interval { next: Instant::now(), period }
    }

    impl Interval {
        pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
            assert_eq!(behavior, MissedTickBehavior::Delay, "other behaviors are not implemented");
        }

        pub async fn tick(&mut self) -> Instant {
            sleep_until(self.next).await;
            let now = Instant::now();
            self.next = now + self.period;
            now
        }
    }
}

pub mod fs {
    use std::io;
    use std::path::Path;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use crate::platform::fs::FileExt;
    use crate::raft::simulation::process;

    /// A file that is read or written sequentially from its beginning.
    #[derive(Debug)]
    pub enum File {
        Real(::tokio::fs::File),
        Simulated { file: crate::platform::fs::File, at: u64 },
    }

    impl File {
        pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
            if process::is_simulated() {
                return Ok(File::Simulated { file: crate::platform::fs::File::open(path)?, at: 0 });
            }
            ::tokio::fs::File::open(path).await.map(File::Real)
        }

        pub async fn create_new(path: impl AsRef<Path>) -> io::Result<Self> {
            if process::is_simulated() {
                let file = crate::platform::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
                return Ok(File::Simulated { file, at: 0 });
            }
            ::tokio::fs::File::create_new(path).await.map(File::Real)
        }

        pub async fn sync_all(&self) -> io::Result<()> {
            match self {
                File::Real(file) => file.sync_all().await,
                File::Simulated { file, .. } => file.sync_all(),
            }
        }
    }

    impl AsyncRead for File {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.get_mut() {
                File::Real(file) => Pin::new(file).poll_read(context, buffer),
                File::Simulated { file, at } => {
                    let length = file.metadata()?.len();
                    let left = usize::try_from(length.saturating_sub(*at)).map_err(io::Error::other)?;
                    let part = buffer.initialize_unfilled();
                    let count = part.len().min(left);
                    file.read_exact_at(&mut part[..count], *at)?;
                    buffer.advance(count);
                    *at += count as u64;
                    Poll::Ready(Ok(()))
                }
            }
        }
    }

    impl AsyncWrite for File {
        fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                File::Real(file) => Pin::new(file).poll_write(context, bytes),
                File::Simulated { file, at } => {
                    file.write_all_at(bytes, *at)?;
                    *at += bytes.len() as u64;
                    Poll::Ready(Ok(bytes.len()))
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                File::Real(file) => Pin::new(file).poll_flush(context),
                File::Simulated { .. } => Poll::Ready(Ok(())),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                File::Real(file) => Pin::new(file).poll_shutdown(context),
                File::Simulated { .. } => Poll::Ready(Ok(())),
            }
        }
    }
}
