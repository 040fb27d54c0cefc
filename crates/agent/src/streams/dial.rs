//! Connections to ports of pods at the pods' own addresses, for the proxies of the masters. The masters speak HTTP over
//! them; this node copies bytes, and adds TLS when a pod expects it.

use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use quorate_api::address::is_global_unicast;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::{Options, Refusal, is_set, negotiate, upgrade};
use crate::server::Shared;
use crate::tls;

/// Maximum number of connections at a time.
pub(crate) const MAX_CONNECTIONS: usize = 512;
/// Time for a pod to accept a connection. The master that waits for it gives up a little later.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);
/// Memory of each direction, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;
/// A connection without a byte in either direction for this long ends, because the master may be gone.
const IDLE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 4 * 60 * 60 });
/// Time for the last bytes after the master has ended its side.
const DRAIN_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// `/dial/{namespace}/{pod}/{port}`
pub(crate) async fn dial(
    State(shared): State<Shared>,
    Path((namespace, name, port)): Path<(String, String, u16)>,
    options: Options,
    request: Request,
) -> Result<Response, Refusal> {
    let headers = negotiate::raw(request.headers())?;
    let pod = shared.find_pod(&namespace, &name)?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse::<IpAddr>().ok());
    // A pod that claims a local address would lead to this machine's own services.
    let Some(ip) = ip.filter(|ip| is_global_unicast(*ip)) else {
        return Err(Refusal::new(
            StatusCode::BAD_GATEWAY,
            format!("pod \"{name}\" has no address that can be reached"),
        ));
    };
    let place = shared.connections.admit()?;
    let connector = is_set(&options, "tls").then_some(&shared.pod_tls);
    let pod = match timeout(CONNECT_WITHIN, connect(ip, port, connector)).await {
        Ok(connected) => connected,
        Err(late) => Err(Error::new(ErrorKind::TimedOut, late)),
    };
    let pod = pod.map_err(|error| {
        let message = format!("dial tcp {}: {error}", std::net::SocketAddr::new(ip, port));
        Refusal::new(StatusCode::BAD_GATEWAY, message)
    })?;
    upgrade(place, headers, request, move |master| copy_both(master, pod))
}

async fn connect(
    ip: IpAddr,
    port: u16,
    connector: Option<&TlsConnector>,
) -> std::io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
    let connection = TcpStream::connect((ip, port)).await?;
    connection.set_nodelay(true)?;
    match connector {
        None => Ok(Either::Left(connection)),
        Some(connector) => Ok(Either::Right(connector.connect(ServerName::IpAddress(ip.into()), connection).await?)),
    }
}

/// Returns the TLS side of connections to pods.
pub(crate) fn connector() -> TlsConnector {
    TlsConnector::from(Arc::new(tls::trust_anyone()))
}

/// Copies in both directions until the pod has ended its side, the master has gone, or nothing moves for hours.
async fn copy_both(master: impl AsyncRead + AsyncWrite, pod: impl AsyncRead + AsyncWrite) {
    let (from_master, to_master) = tokio::io::split(master);
    let (from_pod, to_pod) = tokio::io::split(pod);
    let moved = AtomicU64::new(0);
    let both = async {
        let mut outgoing = std::pin::pin!(copy(from_pod, to_master, &moved));
        let mut incoming = std::pin::pin!(copy(from_master, to_pod, &moved));
        tokio::select! {
            ended = &mut outgoing => ended,
            ended = &mut incoming => match ended {
                Ok(()) => timeout(DRAIN_WITHIN, outgoing).await.unwrap_or_else(|late| Err(late.into())),
                failed => failed,
            },
        }
    };
    tokio::select! {
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, "a proxied connection failed");
        },
        () = idle(&moved) => tracing::debug!("an idle proxied connection was closed"),
    }
}

/// Copies until the reader ends, and then ends the writer.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return timeout(DRAIN_WITHIN, to.shutdown()).await?;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns when nothing has moved for [`IDLE_WITHIN`].
async fn idle(moved: &AtomicU64) {
    loop {
        let before = moved.load(Ordering::Relaxed);
        sleep(IDLE_WITHIN).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_request_and_its_response_pass() {
        let (mut master, master_end) = duplex(64);
        let (mut pod, pod_end) = duplex(64);
        let running = tokio::spawn(copy_both(master_end, pod_end));
        master.write_all(b"request").await.expect("sent");
        let mut request = [0; 7];
        pod.read_exact(&mut request).await.expect("received");
        pod.write_all(b"response").await.expect("sent");
        drop(pod);
        let mut response = String::new();
        master.read_to_string(&mut response).await.expect("the end");
        assert_eq!((&request, response.as_str()), (b"request", "response"));
        timeout(10 * DRAIN_WITHIN, running).await.expect("in time").expect("no panic");
    }

    #[tokio::test]
    async fn a_master_that_goes_away_ends_the_connection_to_the_pod() {
        let (master, master_end) = duplex(64);
        let (mut pod, pod_end) = duplex(64);
        let running = tokio::spawn(copy_both(master_end, pod_end));
        drop(master);
        assert_eq!(pod.read(&mut [0; 8]).await.expect("an end"), 0);
        // The pod does not end its side.
        timeout(10 * DRAIN_WITHIN, running).await.expect("in time").expect("no panic");
        assert!(pod.write_all(b"rest").await.is_err(), "the connection is closed");
    }

    #[tokio::test]
    async fn an_idle_connection_ends() {
        let (_master, master_end) = duplex(64);
        let (_pod, pod_end) = duplex(64);
        timeout(10 * IDLE_WITHIN, copy_both(master_end, pod_end)).await.expect("it ends");
    }
}
