//! Gathers what the streams of a connection send.
//!
//! An event goes to many watches at once, and each wakes its connection as soon as it has something: the runtime would run
//! that next, and every event would be a write of its own. And HTTP/2 flushes after each frame that it does not copy. So
//! what a connection sends is kept until everyone has gone ahead who was ready to run, and is then written together.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept at most; more is written at once.
const MAX_GATHERED_BYTES: usize = 64 << 10;
/// Room that a connection keeps for what comes next.
const KEPT_BYTES: usize = 16 << 10;

/// A stream of bytes for whoever serves the connection. What is written to it, or flushed, goes out while its [`Outlet`]
/// drives the server.
pub(crate) struct Gathered<S>(Arc<Mutex<Gathering<S>>>);

/// Where what was gathered goes out.
pub(crate) struct Outlet<S>(Arc<Mutex<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    gathered: Vec<u8>,
    /// Of `gathered`.
    written: usize,
    is_flushed: bool,
    has_waited: bool,
    /// Told to whoever writes next.
    failed: Option<Error>,
}

/// Both ends of what gathers before `stream`.
pub(crate) fn gather<S>(stream: S) -> (Gathered<S>, Outlet<S>) {
    let gathering =
        Gathering { stream, gathered: Vec::new(), written: 0, is_flushed: true, has_waited: false, failed: None };
    let gathering = Arc::new(Mutex::new(gathering));
    (Gathered(gathering.clone()), Outlet(gathering))
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Runs the server of the connection, and sends what it has written each time it waits.
    pub(crate) async fn drive<F: Future>(&self, mut server: Pin<&mut F>) -> F::Output {
        std::future::poll_fn(|context| {
            let polled = server.as_mut().poll(context);
            if polled.is_pending() {
                self.0.lock().send_after_others(context);
            }
            polled
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn send_after_others(&mut self, context: &mut Context<'_>) {
        if self.is_flushed || self.failed.is_some() {
            return;
        }
        if !std::mem::replace(&mut self.has_waited, true) {
            // A task that wakes itself is put behind all that are ready.
            return context.waker().wake_by_ref();
        }
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            self.failed = Some(error);
            context.waker().wake_by_ref();
        }
    }

    /// Writes and flushes what was gathered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_empty(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_flushed = true;
        self.has_waited = false;
        Poll::Ready(Ok(()))
    }

    /// Writes what was gathered.
    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.written = 0;
        self.gathered.clear();
        self.gathered.shrink_to(KEPT_BYTES);
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        self.check()?;
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.is_flushed = false;
        if self.gathered.len() + length <= MAX_GATHERED_BYTES {
            slices.iter().for_each(|slice| self.gathered.extend_from_slice(slice));
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_empty(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.0.lock().poll_take(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.lock().poll_take(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.0.lock().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut gathering = self.0.lock();
        gathering.check()?;
        ready!(gathering.poll_send(context))?;
        Pin::new(&mut gathering.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the writes that arrive, as those of a socket.
    #[derive(Default)]
    struct Socket {
        writes: Vec<usize>,
        flushes: usize,
        is_broken: bool,
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            if self.is_broken {
                return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
            }
            self.writes.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(stream: &mut Gathered<Socket>, context: &mut Context<'_>, bytes: &[u8]) {
        let written = Pin::new(&mut *stream).poll_write(context, bytes);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == bytes.len()), "{written:?}");
        assert!(matches!(Pin::new(stream).poll_flush(context), Poll::Ready(Ok(()))));
    }

    #[test]
    fn others_go_ahead_of_each_burst_and_it_goes_out_together() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let (mut stream, outlet) = gather(Socket::default());
        for burst in 1..=2 {
            let frames = std::cell::Cell::new(0);
            let mut server = std::pin::pin!(std::future::poll_fn(|context| {
                for _ in 0..3 {
                    write(&mut stream, context, b"frame");
                }
                frames.set(frames.get() + 3);
                Poll::<()>::Pending
            }));
            let mut driven = std::pin::pin!(outlet.drive(server.as_mut()));
            assert!(driven.as_mut().poll(&mut context).is_pending());
            assert_eq!(wakes.0.load(Ordering::Relaxed), burst, "it comes back by itself");
            assert_eq!(outlet.0.lock().stream.writes.len(), burst - 1);
            assert!(driven.as_mut().poll(&mut context).is_pending());
            assert_eq!(frames.get(), 6);
            assert_eq!(outlet.0.lock().stream.writes, vec![6 * 5; burst]);
            assert_eq!(outlet.0.lock().stream.flushes, burst);
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2, "nothing is left to do");
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let mut context = Context::from_waker(Waker::noop());
        let (mut stream, outlet) = gather(Socket::default());
        for _ in 0..4 {
            write(&mut stream, &mut context, &[0; MAX_GATHERED_BYTES / 4]);
        }
        assert!(outlet.0.lock().stream.writes.is_empty());
        write(&mut stream, &mut context, &[0; 1]);
        assert_eq!(outlet.0.lock().stream.writes, [MAX_GATHERED_BYTES, 1]);
        assert!(outlet.0.lock().gathered.capacity() <= KEPT_BYTES);
    }

    #[test]
    fn whoever_writes_learns_of_a_failure() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let (mut stream, outlet) = gather(Socket { is_broken: true, ..Socket::default() });
        let mut server = std::pin::pin!(std::future::poll_fn(|context| {
            if Pin::new(&mut stream).poll_flush(context)?.is_pending() {
                return Poll::Pending;
            }
            let written = Pin::new(&mut stream).poll_write(context, b"frame")?;
            assert!(written.is_ready());
            Poll::Pending::<Result<()>>
        }));
        let mut driven = std::pin::pin!(outlet.drive(server.as_mut()));
        for wake in 1..=2 {
            assert!(driven.as_mut().poll(&mut context).is_pending());
            assert_eq!(wakes.0.load(Ordering::Relaxed), wake);
        }
        let Poll::Ready(Err(error)) = driven.as_mut().poll(&mut context) else { panic!("it goes on") };
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }

    /// Writes everything, however slowly it is read, in order.
    #[tokio::test]
    async fn nothing_is_lost_on_a_slow_connection() {
        let (ours, mut theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
        let (mut stream, outlet) = gather(ours);
        let serve = async {
            for (i, piece) in sent.chunks(7_001).enumerate() {
                stream.write_all(piece).await.expect("written");
                stream.flush().await.expect("it says so");
                if i % 5 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            stream.shutdown().await.expect("the rest is sent");
        };
        let read = async {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.expect("readable");
            received
        };
        let mut serve = std::pin::pin!(serve);
        let ((), received) = tokio::join!(outlet.drive(serve.as_mut()), read);
        assert!(received == sent);
    }
}
