//! A minimal REST client with one HTTP/1.1 connection, whose cost is small compared with the server's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::cluster::Cluster;

/// Credentials of the administrator.
#[derive(Clone)]
pub struct Credentials(TlsConnector);

impl Credentials {
    pub fn of(cluster: &Cluster) -> anyhow::Result<Credentials> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(cluster.pki("ca.crt"))?)?;
        let cert = CertificateDer::from_pem_file(cluster.pki("admin.crt"))?;
        let key = PrivateKeyDer::from_pem_file(cluster.pki("admin.key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], key)?;
        Ok(Credentials(TlsConnector::from(Arc::new(config))))
    }
}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Connection {
    /// Connects to the API at `url`.
    pub async fn open(url: &str, credentials: &Credentials) -> anyhow::Result<Connection> {
        let authority = url.strip_prefix("https://").context("not an https URL")?.to_owned();
        let stream = TcpStream::connect(&authority).await?;
        stream.set_nodelay(true)?;
        let host = authority.split(':').next().unwrap_or_default().to_owned();
        let stream = credentials.0.connect(ServerName::try_from(host)?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The task ends when the sender is dropped or the server closes the connection. The next request reports the
        // latter.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Connection { sender, authority })
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<http::Response<Incoming>> {
        let patch = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, patch)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request, and returns the status and the whole body of its answer.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(limit, exchange).await.context("no answer in time")?
    }

    /// Sends a request that must succeed.
    pub async fn expect(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (status, answer) = self.request(method, path, body, Duration::from_secs(30)).await?;
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Opens a watch.
    pub async fn watch(mut self, path: &str) -> anyhow::Result<Lines> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        anyhow::ensure!(response.status().is_success(), "{path}: {}", response.status());
        Ok(Lines { body: response.into_body(), rest: Vec::new(), _connection: self })
    }
}

/// Lines of a streaming response.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
    _connection: Connection,
}

impl Lines {
    /// Returns the next line.
    pub async fn next_line(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let after = self.rest.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.rest, after));
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data.as_ref()));
        }
    }
}
