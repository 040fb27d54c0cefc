//! The gRPC health check of probes. Like the kubelet, it calls `grpc.health.v1.Health/Check` over HTTP/2 without TLS.

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Maximum size of a response, in bytes. A valid response has two bytes.
const ANSWER_BYTES: usize = 1024;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    /// Returns the name in the protocol, which the kubelet prints.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ServingStatus::Unknown => "UNKNOWN",
            ServingStatus::Serving => "SERVING",
            ServingStatus::NotServing => "NOT_SERVING",
            ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("{0}")]
    Address(#[source] http::Error),
    #[error("{0}")]
    Connection(#[source] hyper::Error),
    #[error("{}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
}

/// Asks for the health of a service. The empty name stands for the whole server.
pub(crate) async fn check(
    stream: TcpStream,
    authority: &str,
    service: &str,
    agent: &'static str,
) -> Result<ServingStatus, CheckError> {
    let origin = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
    let origin = origin.map_err(CheckError::Address)?;
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(CheckError::Connection)?;
    let send = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut client = tonic::client::Grpc::with_origin(send, origin).max_decoding_message_size(ANSWER_BYTES);
    let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    request.metadata_mut().insert("user-agent", MetadataValue::from_static(agent));
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, PathAndQuery::from_static(METHOD), codec);
    tokio::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(CheckError::Connection)?;
            answer.await
        }
    };
    let answer: tonic::Response<HealthCheckResponse> =
        answer.map_err(|status| CheckError::Refused(Box::new(status)))?;
    Ok(answer.into_inner().status())
}
