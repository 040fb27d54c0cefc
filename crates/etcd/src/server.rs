//! The server: gRPC over HTTP/2 and a little plain HTTP, with or without TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use futures::future::{BoxFuture, Map};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quorate_store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;

use crate::answers::{self, Answers};
use crate::auth::AuthService;
use crate::cluster::ClusterService;
use crate::election::ElectionService;
use crate::gather::gather;
use crate::guard::Guard;
use crate::intake::{Intake, MAX_REQUEST_BYTES};
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::lock::LockService;
use crate::maintenance::MaintenanceService;
use crate::pb::etcdserverpb::auth_server::AuthServer;
use crate::pb::etcdserverpb::cluster_server::ClusterServer;
use crate::pb::etcdserverpb::kv_server::KvServer;
use crate::pb::etcdserverpb::lease_server::LeaseServer;
use crate::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::pb::etcdserverpb::watch_server::WatchServer;
use crate::pb::v3electionpb::election_server::ElectionServer;
use crate::pb::v3lockpb::lock_server::LockServer;
use crate::shared::Shared;
use crate::watch::WatchService;
use crate::web;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// Time for running requests to finish after shutdown has begun.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Maximum number of concurrent calls on one connection, including watches.
const MAX_STREAMS: u32 = 20_000;
/// Interval of the HTTP/2 pings that detect dead connections.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Maximum size of a message in a stream of requests, in bytes. These messages name only keys and leases, and thousands
/// of streams may hold an incomplete one.
const MAX_STREAMED_BYTES: usize = 16 << 10;

/// Access control of connections.
#[derive(Clone)]
pub enum Access {
    /// Anyone who reaches the address may connect. Meant for loopback addresses.
    Plain,
    /// Clients may connect with a certificate that the acceptor verifies and `admits` accepts.
    Tls { acceptor: TlsAcceptor, admits: Arc<dyn Fn(&CertificateDer<'_>) -> bool + Send + Sync> },
}

/// Configuration of a server.
pub struct ServerConfig {
    pub listener: TcpListener,
    pub access: Access,
    pub guard: Guard,
    /// Maximum total size of the responses to reads that their clients have not read yet, in bytes. Responses to writes
    /// have a second budget of the same size.
    pub answers_bytes: usize,
}

impl ServerConfig {
    /// Default of `answers_bytes`.
    pub const DEFAULT_ANSWERS_BYTES: usize = 256 << 20;
}

/// Serves until shutdown, then lets running requests finish, ends streams, and returns.
pub async fn serve(store: Store, config: ServerConfig, shutdown: CancellationToken) {
    let answers = Answers::new(config.answers_bytes);
    let services = Services::new(Shared::new(store, config.guard, answers, shutdown.clone()));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = config.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, config.access.clone(), services.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(config.listener);
    connections.close();
    connections.wait().await;
}

/// All services of one connection. Most requests are for the KV service, so they bypass the router of the others.
#[derive(Clone)]
struct Services {
    intake: Intake,
    kv: KvServer<KvService>,
    others: Router,
}

type Answered = Result<Response<Body>, Infallible>;
type Answering = BoxFuture<'static, Answered>;

impl Services {
    fn new(shared: Shared) -> Self {
        let others =
            Routes::new(WatchServer::new(WatchService(shared.clone())).max_decoding_message_size(MAX_STREAMED_BYTES))
                .add_service(
                    LeaseServer::new(LeaseService(shared.clone())).max_decoding_message_size(MAX_STREAMED_BYTES),
                )
                .add_service(ClusterServer::new(ClusterService(shared.clone())))
                .add_service(MaintenanceServer::new(MaintenanceService(shared.clone())))
                .add_service(AuthServer::new(AuthService(shared.clone())))
                .add_service(LockServer::new(LockService(shared.clone())))
                .add_service(ElectionServer::new(ElectionService(shared.clone())))
                .into_axum_router()
                .merge(web::routes(shared.clone()));
        let kv = KvServer::new(KvService(shared)).max_decoding_message_size(MAX_REQUEST_BYTES);
        Services { intake: Intake::new(), kv, others }
    }
}

impl Service<Request<Incoming>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<Answering, fn(Answered) -> Answered>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = self.intake.count(request);
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split('/').next());
        let answering: Answering = if service == Some(<KvServer<KvService> as NamedService>::NAME) {
            tower::Service::call(&mut self.kv.clone(), request)
        } else {
            let answering = tower::Service::call(&mut self.others.clone(), request);
            Box::pin(async move { answering.await.map(|response| response.map(Body::new)) })
        };
        answering.map(attach_reservation as fn(Answered) -> Answered)
    }
}

fn attach_reservation(answered: Answered) -> Answered {
    answered.map(answers::attach_to_body)
}

async fn connection(stream: TcpStream, access: Access, services: Services, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let Access::Tls { acceptor, admits } = access else {
        return serve_connection(stream, services, shutdown).await;
    };
    let stream = match timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    if !certificates.and_then(|chain| chain.first()).is_some_and(|certificate| admits(certificate)) {
        return tracing::info!("a client without an administrator's certificate was rejected");
    }
    serve_connection(stream, services, shutdown).await;
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    services: Services,
    shutdown: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE);
    let (stream, outlet) = gather(stream);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), services));
    let ended = tokio::select! {
        ended = outlet.drive(serving.as_mut()) => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match timeout(DRAIN_WITHIN, outlet.drive(serving.as_mut())).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection was cut off at shutdown"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended");
    }
}
