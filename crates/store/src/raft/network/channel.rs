//! An open connection to a peer.

use http::{Request, Response};
use hyper::client::conn::http2::SendRequest;

use super::frames::PeerBody;

/// A connection that requests are sent on. Clones share it.
#[derive(Clone)]
pub enum Channel {
    Http2(SendRequest<PeerBody>),
    #[cfg(test)]
    Simulated(crate::raft::simulation::network::Channel),
}

/// The body of a response.
#[cfg(not(test))]
pub type ResponseBody = hyper::body::Incoming;
#[cfg(test)]
pub type ResponseBody = PeerBody;

/// Why a request got no response.
#[derive(Debug)]
pub struct Unanswered {
    /// Whether the peer may have received the request.
    pub was_sent: bool,
    pub reason: String,
}

impl Channel {
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Channel::Http2(sender) => sender.is_closed(),
            #[cfg(test)]
            Channel::Simulated(channel) => channel.is_closed(),
        }
    }

    /// Sends a request. Returns when the head of the response has arrived.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn send(&mut self, request: Request<PeerBody>) -> Result<Response<ResponseBody>, Unanswered> {
        match self {
            Channel::Http2(sender) => match sender.try_send_request(request).await {
                Ok(response) => Ok(response.map(body)),
                Err(mut error) => {
                    let was_sent = error.take_message().is_none();
                    Err(Unanswered { was_sent, reason: error.into_error().to_string() })
                }
            },
            #[cfg(test)]
            Channel::Simulated(channel) => channel.send(request).await,
        }
    }
}

#[cfg(not(test))]
fn body(incoming: ResponseBody) -> ResponseBody {
    incoming
}

#[cfg(test)]
fn body(incoming: hyper::body::Incoming) -> ResponseBody {
    use http_body_util::BodyExt;
    incoming.map_err(|error| super::frames::FrameError::Connection(error.to_string())).boxed_unsync()
}
