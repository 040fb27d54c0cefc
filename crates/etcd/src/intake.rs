//! Memory budget of incoming requests.
//!
//! A request is collected in memory before it can be answered. Thousands of large requests, complete or not, would take
//! unbounded memory, so requests beyond a common budget are refused.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use quorate_store::{ByteBudget, Reservation};
use tonic::Status;

use crate::errors;

/// Maximum total size of all incoming requests, in bytes.
const BUDGET_BYTES: usize = 128 << 20;
/// Maximum size of a gRPC request message, in bytes. It is larger than etcd's limit on writes, so that a somewhat
/// larger write gets etcd's own error.
pub(crate) const MAX_REQUEST_BYTES: usize = (3 << 19) + (512 << 10);
/// Size of the prefix of a gRPC message, in bytes: the compression flag and the length.
const PREFIX_BYTES: usize = 5;
/// Maximum size of a request that needs no reservation. The number of streams per connection bounds these.
const FREE_BYTES: usize = 16 << 10;
/// Calls with a stream of requests. They are not counted: each message is small and is handled before the next is read.
const STREAMS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];

/// The budget for requests. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Intake(ByteBudget);

impl Intake {
    pub(crate) fn new() -> Self {
        Intake::of(BUDGET_BYTES)
    }

    fn of(bytes: usize) -> Self {
        Intake(ByteBudget::new(bytes, FREE_BYTES))
    }

    /// Wraps the body of a request so that its bytes count against the budget.
    pub(crate) fn count<B>(&self, request: Request<B>) -> Request<Counted<B>> {
        let counts = !STREAMS.contains(&request.uri().path());
        let reservation = counts.then(|| self.0.reservation());
        request.map(|body| Counted { body, reservation, prefix: [0; PREFIX_BYTES], size_bytes: 0 })
    }
}

/// A body that reserves budget as its bytes arrive, and releases it when the body is dropped.
pub(crate) struct Counted<B> {
    body: B,
    /// `None` for a request that is not counted.
    reservation: Option<Reservation>,
    /// The received part of the message's prefix.
    prefix: [u8; PREFIX_BYTES],
    size_bytes: usize,
}

impl<B> Counted<B> {
    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        let known = self.size_bytes.min(PREFIX_BYTES);
        let more = data.len().min(PREFIX_BYTES - known);
        self.prefix[known..known + more].copy_from_slice(&data[..more]);
        self.size_bytes += data.len();
        let [_, a, b, c, d] = self.prefix;
        let declared = u32::from_be_bytes([a, b, c, d]);
        // A message that declares too large a size is refused before its bytes arrive.
        if more > 0 && known + more == PREFIX_BYTES && declared as usize > MAX_REQUEST_BYTES {
            let problem = format!("grpc: received message larger than max ({declared} vs. {MAX_REQUEST_BYTES})");
            return Err(Status::resource_exhausted(problem));
        }
        reservation.grow(data.len()).map_err(|_| errors::TOO_MANY_REQUESTS.into())
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(refused) = self.take(data)
        {
            return Poll::Ready(Some(Err(refused.into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, BodyDataStream};
    use futures::StreamExt;
    use tonic::Code;

    use super::*;

    const PUT: &str = "/etcdserverpb.KV/Put";

    /// A counted request body that arrives in parts of the given sizes.
    fn request(intake: &Intake, path: &str, parts: &[usize]) -> BodyDataStream {
        let parts: Vec<_> = parts.iter().map(|size| Ok::<_, axum::Error>(Bytes::from(vec![0; *size]))).collect();
        let body = Body::from_stream(futures::stream::iter(parts));
        let request = Request::post(path).body(body).expect("a request");
        Body::new(intake.count(request).into_body()).into_data_stream()
    }

    #[tokio::test]
    async fn requests_beyond_the_budget_are_refused() {
        let intake = Intake::of(10 * FREE_BYTES);
        let mut first = request(&intake, PUT, &[8 * FREE_BYTES, FREE_BYTES]);
        assert!(first.next().await.is_some_and(|part| part.is_ok()));
        let mut second = request(&intake, PUT, &[4 * FREE_BYTES]);
        let refused = Status::from_error(second.next().await.expect("an answer").expect_err("no room").into());
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "etcdserver: too many requests"));
        for (path, parts) in [(PUT, &[FREE_BYTES][..]), (STREAMS[0], &[4 * FREE_BYTES])] {
            let mut free = request(&intake, path, parts);
            assert!(free.next().await.is_some_and(|part| part.is_ok()), "{path}");
        }
        assert!(
            first.next().await.is_some_and(|part| part.is_ok()),
            "a request that has begun continues while budget is left"
        );
        let reservation = Some(ByteBudget::new(0, FREE_BYTES).reservation());
        let mut declared = Counted { body: (), reservation, prefix: [0; 5], size_bytes: 0 };
        let length = u32::try_from(MAX_REQUEST_BYTES + 1).expect("a length").to_be_bytes();
        assert!(declared.take(&[0, length[0]]).is_ok());
        let refused = declared.take(&length[1..]).expect_err("its declared length is too large");
        assert_eq!(refused.message(), "grpc: received message larger than max (2097153 vs. 2097152)");
        drop((first, second));
        let mut third = request(&intake, PUT, &[9 * FREE_BYTES]);
        assert!(third.next().await.is_some_and(|part| part.is_ok()));
    }
}
