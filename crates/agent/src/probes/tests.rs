//! gRPC probes against a real gRPC server.

use std::convert::Infallible;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use quorate_pki::LiveIdentity;
use serde_json::json;
use tokio::net::TcpListener;
use tonic_prost::ProstCodec;

use super::*;
use crate::config::AgentConfig;
use crate::grpc::{HealthCheckRequest, HealthCheckResponse};
use crate::runtime::DockerRuntime;

/// A health service that knows `good`, `bad` and `slow`, which never answers. The server itself is healthy.
#[derive(Clone)]
struct Health;

impl tonic::server::UnaryService<HealthCheckRequest> for Health {
    type Response = HealthCheckResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<HealthCheckResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<HealthCheckRequest>) -> Self::Future {
        Box::pin(async move {
            let agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            assert!(agent.starts_with("kube-probe/1.36"), "{agent}");
            let status = match request.get_ref().service.as_str() {
                "" | "good" => ServingStatus::Serving,
                "bad" => ServingStatus::NotServing,
                "slow" => std::future::pending().await,
                _ => return Err(tonic::Status::not_found("unknown service")),
            };
            Ok(tonic::Response::new(HealthCheckResponse { status: status.into() }))
        })
    }
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.uri().path() != "/grpc.health.v1.Health/Check" {
        return Ok(tonic::Status::unimplemented("no such method").into_http());
    }
    let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
    Ok(tonic::server::Grpc::new(codec).unary(Health, request).await)
}

/// Serves gRPC with or without the health service, and returns the port.
async fn serve(with_health: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |request: http::Request<Incoming>| async move {
                if with_health {
                    answer(request).await
                } else {
                    Ok(tonic::Status::unimplemented("unknown service grpc.health.v1.Health").into_http())
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

fn prober() -> Prober {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = LiveIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("the key fits");
    let config = AgentConfig::new("node-a", Arc::clone(&identity), identity, String::new());
    Prober::new(Arc::new(DockerRuntime::new(&config, None).expect("no engine is asked")))
}

async fn probe(port: u16, service: Option<&str>) -> (bool, String) {
    let action = json!({ "port": port, "service": service });
    let probe = serde_json::from_value(json!({ "grpc": action, "timeoutSeconds": 1 })).expect("a probe");
    let container = Container { name: "main".to_owned(), ..Container::default() };
    let target = Target { container: &container, container_id: "c1", pod_ip: "127.0.0.1" };
    let report = prober().probe(target, &probe).await;
    (report.healthy, report.output)
}

fn unhealthy(output: &str) -> (bool, String) {
    (false, output.to_owned())
}

#[tokio::test]
async fn a_grpc_probe_asks_for_the_health_of_its_service() {
    let port = serve(true).await;
    assert_eq!(probe(port, None).await, (true, "service healthy".to_owned()));
    assert_eq!(probe(port, Some("good")).await, (true, "service healthy".to_owned()));
    assert_eq!(probe(port, Some("bad")).await, unhealthy("service unhealthy (responded with \"NOT_SERVING\")"));
    assert_eq!(
        probe(port, Some("absent")).await,
        unhealthy("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service")
    );
    assert_eq!(probe(port, Some("slow")).await, unhealthy("timeout: health rpc did not complete within 1s"));
}

#[tokio::test]
async fn a_grpc_probe_fails_without_a_health_service() {
    let (healthy, output) = probe(serve(false).await, None).await;
    assert!(
        !healthy && output.starts_with("error: this server does not implement the grpc health protocol"),
        "{output}"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let web = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_: http::Request<Incoming>| async {
                Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let (healthy, output) = probe(port, None).await;
    assert!(!healthy && output.starts_with("error: health rpc probe failed: "), "a web server: {output}");
    web.abort();
    assert!(web.await.is_err(), "the port is closed");

    let (healthy, output) = probe(port, None).await;
    let refused = format!("error: failed to connect service at \"127.0.0.1:{port}\"");
    assert!(!healthy && output.starts_with(&refused), "{output}");
}
