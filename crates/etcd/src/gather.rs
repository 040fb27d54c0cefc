//! Batches the writes of a connection's streams.
//!
//! An event goes to many watches at once, and each watch wakes its connection immediately. The runtime would run the
//! connection next, and every event would be a socket write of its own. HTTP/2 also flushes after each frame that it
//! does not copy. The bytes of a connection are therefore buffered until all tasks that are ready have run, and are
//! then written together.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of buffered bytes. A write that exceeds it goes out immediately.
const MAX_GATHERED_BYTES: usize = 64 << 10;
/// Maximum capacity of the buffer that a connection keeps after it was written.
const KEPT_BYTES: usize = 16 << 10;

/// The stream that the connection's server writes to. Its bytes go out while the [`Outlet`] drives the server.
pub(crate) struct Gathered<S>(Arc<Mutex<Gathering<S>>>);

/// The other end of a [`Gathered`] stream, which sends its bytes.
pub(crate) struct Outlet<S>(Arc<Mutex<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    gathered: Vec<u8>,
    /// Number of bytes of `gathered` that have been sent.
    written: usize,
    is_flushed: bool,
    has_waited: bool,
    /// A failed write, which the next write or flush returns.
    failed: Option<Error>,
}

/// Puts a buffer in front of `stream` and returns both of its ends.
pub(crate) fn gather<S>(stream: S) -> (Gathered<S>, Outlet<S>) {
    let gathering =
        Gathering { stream, gathered: Vec::new(), written: 0, is_flushed: true, has_waited: false, failed: None };
    let gathering = Arc::new(Mutex::new(gathering));
    (Gathered(gathering.clone()), Outlet(gathering))
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Runs the server of the connection, and sends the buffered bytes whenever the server is pending.
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
            // A task that wakes itself is queued behind all tasks that are ready.
            return context.waker().wake_by_ref();
        }
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            self.failed = Some(error);
            context.waker().wake_by_ref();
        }
    }

    /// Writes the buffered bytes and flushes the stream.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_empty(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_flushed = true;
        self.has_waited = false;
        Poll::Ready(Ok(()))
    }

    /// Writes the buffered bytes.
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

    /// A fake socket that counts writes and flushes.
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
    fn a_burst_waits_for_ready_tasks_and_is_one_write() {
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
            assert_eq!(wakes.0.load(Ordering::Relaxed), burst, "the task wakes itself");
            assert_eq!(outlet.0.lock().stream.writes.len(), burst - 1);
            assert!(driven.as_mut().poll(&mut context).is_pending());
            assert_eq!(frames.get(), 6);
            assert_eq!(outlet.0.lock().stream.writes, vec![6 * 5; burst]);
            assert_eq!(outlet.0.lock().stream.flushes, burst);
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2, "no further wakes");
    }

    #[test]
    fn the_buffer_is_bounded() {
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
    fn the_next_write_returns_an_earlier_failure() {
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
        let Poll::Ready(Err(error)) = driven.as_mut().poll(&mut context) else { panic!("it did not fail") };
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn nothing_is_lost_on_a_slow_connection() {
        let (ours, mut theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
        let (mut stream, outlet) = gather(ours);
        let serve = async {
            for (i, piece) in sent.chunks(7_001).enumerate() {
                stream.write_all(piece).await.expect("written");
                stream.flush().await.expect("flushed");
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
