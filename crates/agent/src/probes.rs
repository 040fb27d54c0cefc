//! Runs probes and lifecycle hooks: a command in the container, an HTTP request, a TCP connection, or a gRPC health
//! check.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::grpc::{self, CheckError, ServingStatus};
use crate::runtime::{Runtime, RuntimeError};
use crate::tls;

const USER_AGENT_NAME: &str = "kube-probe/1.36";

/// Maximum size of a response body, in bytes.
const BODY_LIMIT: usize = 10 * 1024;

/// The result of a probe or a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub healthy: bool,
    pub output: String,
}

impl Report {
    fn healthy(output: impl Into<String>) -> Self {
        Report { healthy: true, output: output.into() }
    }

    fn unhealthy(output: impl Into<String>) -> Self {
        Report { healthy: false, output: output.into() }
    }
}

/// The container that a probe or a hook runs against.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: &'a str,
}

pub(crate) struct Prober {
    runtime: Arc<dyn Runtime>,
    tls: TlsConnector,
}

impl Prober {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Prober { runtime, tls: TlsConnector::from(Arc::new(tls::trust_anyone())) }
    }

    pub(crate) async fn probe(&self, target: Target<'_>, probe: &Probe) -> Report {
        if self.runtime.is_hollow() {
            return Report::healthy("");
        }
        let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
        if let Some(exec) = &probe.exec {
            // The runtime enforces this timeout. Dropping the call here would leave the command's process running.
            return self.exec(&target, exec, timeout).await;
        }
        let run = async {
            if let Some(get) = &probe.http_get {
                self.http(&target, get).await
            } else if let Some(tcp) = &probe.tcp_socket {
                connect(&target, tcp.host.as_deref(), &tcp.port).await
            } else if let Some(action) = &probe.grpc {
                check_health(&target, action).await
            } else {
                Report::unhealthy("the probe has no action")
            }
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(report) => report,
            Err(_) => Report::unhealthy(timed_out(&target, probe)),
        }
    }

    /// Runs a postStart or preStop hook, for at most `timeout`.
    pub(crate) async fn hook(&self, target: Target<'_>, hook: &LifecycleHandler, timeout: Duration) -> Report {
        if self.runtime.is_hollow() {
            return Report::healthy("");
        }
        if let Some(exec) = &hook.exec {
            return self.exec(&target, exec, timeout).await;
        }
        let run = async {
            if let Some(get) = &hook.http_get {
                self.http(&target, get).await
            } else if let Some(tcp) = &hook.tcp_socket {
                connect(&target, tcp.host.as_deref(), &tcp.port).await
            } else if let Some(sleep) = &hook.sleep {
                tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
                Report::healthy("")
            } else {
                Report::unhealthy("the hook has no action")
            }
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(report) => report,
            Err(_) => Report::unhealthy(format!("the hook did not end within {}s", timeout.as_secs())),
        }
    }

    async fn exec(&self, target: &Target<'_>, exec: &ExecAction, timeout: Duration) -> Report {
        let command = exec.command.as_deref().unwrap_or_default();
        match self.runtime.exec(target.container_id, command, timeout).await {
            Ok(result) if result.code == 0 => Report::healthy(result.output),
            Ok(result) => Report::unhealthy(result.output),
            Err(RuntimeError::TimedOut { .. }) => Report::unhealthy(command_timed_out(command)),
            Err(error) => Report::unhealthy(error.to_string()),
        }
    }

    async fn http(&self, target: &Target<'_>, get: &HTTPGetAction) -> Report {
        match self.fetch(target, get).await {
            Ok((status, _)) if (200..400).contains(&status) => Report::healthy(format!("HTTP status {status}")),
            Ok((status, _)) => Report::unhealthy(format!("HTTP probe failed with statuscode: {status}")),
            Err(error) => Report::unhealthy(format!("Get \"{}\": {error}", url(target, get))),
        }
    }

    async fn fetch(&self, target: &Target<'_>, get: &HTTPGetAction) -> Result<(u16, Bytes), ProbeError> {
        let port = port(target.container, &get.port).ok_or(ProbeError::Port)?;
        let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(target.pod_ip);
        let stream = dial(host, port).await?;
        let mut request = http::Request::get(path(get)).body(Empty::<Bytes>::new()).map_err(ProbeError::Request)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_NAME));
        let authority =
            HeaderValue::try_from(format!("{host}:{port}")).map_err(|error| ProbeError::Request(error.into()))?;
        headers.insert(HOST, authority);
        for header in get.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&header.name).map_err(|error| ProbeError::Request(error.into()))?;
            let value = HeaderValue::try_from(&header.value).map_err(|error| ProbeError::Request(error.into()))?;
            headers.insert(name, value);
        }
        if get.scheme.as_deref() == Some("HTTPS") {
            let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|_| ProbeError::Port)?;
            exchange(self.tls.connect(name, stream).await.map_err(ProbeError::Tls)?, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("the container has no such port")]
    Port,
    #[error("dial tcp {address}: {}", reason(source))]
    Connect { address: String, source: std::io::Error },
    #[error("{0}")]
    Tls(#[source] std::io::Error),
    #[error("{0}")]
    Request(#[source] http::Error),
    #[error("{0}")]
    Http(#[source] hyper::Error),
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<(u16, Bytes), ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ProbeError::Http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(ProbeError::Http)?;
        let status = response.status().as_u16();
        // The status counts even if the body is too long or incomplete.
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        Ok((status, body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes)))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(ProbeError::Http)?;
            answer.await
        }
    }
}

async fn connect(target: &Target<'_>, host: Option<&str>, to: &IntOrString) -> Report {
    let Some(port) = port(target.container, to) else { return Report::unhealthy("the container has no such port") };
    let host = host.filter(|host| !host.is_empty()).unwrap_or(target.pod_ip);
    match dial(host, port).await {
        Ok(_) => Report::healthy(""),
        Err(error) => Report::unhealthy(error.to_string()),
    }
}

async fn check_health(target: &Target<'_>, action: &GRPCAction) -> Report {
    let Ok(port) = u16::try_from(action.port) else { return Report::unhealthy("the container has no such port") };
    let address = grpc_address(target, action);
    let stream = match dial(target.pod_ip, port).await {
        Ok(stream) => stream,
        Err(error) => return Report::unhealthy(format!("error: failed to connect service at \"{address}\": {error}")),
    };
    let service = action.service.as_deref().unwrap_or_default();
    match grpc::check(stream, &address, service, USER_AGENT_NAME).await {
        Ok(ServingStatus::Serving) => Report::healthy("service healthy"),
        Ok(status) => Report::unhealthy(format!("service unhealthy (responded with \"{}\")", status.name())),
        Err(CheckError::Refused(status)) if status.code() == tonic::Code::Unimplemented => Report::unhealthy(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(CheckError::Refused(status)) => Report::unhealthy(format!(
            "error: health rpc probe failed: rpc error: code = {:?} desc = {}",
            status.code(),
            status.message()
        )),
        Err(error) => Report::unhealthy(format!("error: health rpc probe failed: {error}")),
    }
}

fn grpc_address(target: &Target<'_>, action: &GRPCAction) -> String {
    let ip = target.pod_ip;
    if ip.contains(':') { format!("[{ip}]:{}", action.port) } else { format!("{ip}:{}", action.port) }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, ProbeError> {
    let connected = TcpStream::connect((host, port)).await;
    connected.map_err(|source| ProbeError::Connect { address: format!("{host}:{port}"), source })
}

/// Returns the kubelet's message for a probe that timed out.
fn timed_out(target: &Target<'_>, probe: &Probe) -> String {
    if let Some(get) = &probe.http_get {
        let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        return format!("Get \"{}\": {why}", url(target, get));
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(target.pod_ip);
        return format!("dial tcp {host}:{}: i/o timeout", port(target.container, &tcp.port).unwrap_or_default());
    }
    if probe.grpc.is_some() {
        return format!("timeout: health rpc did not complete within {}s", probe.timeout_seconds.unwrap_or(1).max(1));
    }
    command_timed_out(probe.exec.as_ref().and_then(|exec| exec.command.as_deref()).unwrap_or_default())
}

fn command_timed_out(command: &[String]) -> String {
    format!("command \"{}\" timed out", command.join(" "))
}

/// Returns the kubelet's wording of the common connection errors.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    }
}

fn path(get: &HTTPGetAction) -> String {
    let path = get.path.as_deref().unwrap_or_default();
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn url(target: &Target<'_>, get: &HTTPGetAction) -> String {
    let scheme = if get.scheme.as_deref() == Some("HTTPS") { "https" } else { "http" };
    let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(target.pod_ip);
    let port = port(target.container, &get.port).map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{host}{port}{}", path(get))
}

/// Resolves a port, given by number or by its name in the container's list.
fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |port| u16::try_from(port.container_port).ok())
        }
    }
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
