//! A small REST client with one HTTP/1.1 connection at a time. It does not retry, so each recorded request was sent at
//! most once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::cluster::Layout;
use crate::world::MemberIndex;

const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Client certificate of the administrator.
#[derive(Clone)]
pub struct Credentials(TlsConnector);

impl Credentials {
    /// # Errors
    /// When a file of the layout cannot be read.
    pub fn of(layout: &Layout) -> anyhow::Result<Credentials> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&layout.ca)?)?;
        let cert = CertificateDer::from_pem_file(&layout.admin.cert)?;
        let key = PrivateKeyDer::from_pem_file(&layout.admin.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], key)?;
        Ok(Credentials(TlsConnector::from(Arc::new(config))))
    }
}

/// Client of one member at a time.
pub struct Rest {
    layout: Arc<Layout>,
    credentials: Credentials,
    pub member: MemberIndex,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reason why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The request was not sent.
    NotSent(String),
    /// The request may have been executed.
    Lost(String),
}

impl Rest {
    #[must_use]
    pub fn new(layout: Arc<Layout>, credentials: Credentials, member: MemberIndex) -> Self {
        Rest { layout, credentials, member, connection: None }
    }

    pub fn move_to(&mut self, member: MemberIndex) {
        self.member = member;
        self.connection = None;
    }

    /// Sends a request, and returns the status and the whole body of its answer.
    ///
    /// # Errors
    /// See [`Failure`]; the next request reconnects.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<(StatusCode, Value), Failure> {
        let exchange = async {
            let body = body.map(ToString::to_string).unwrap_or_default();
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let lost = |error: &dyn std::fmt::Display| Failure::Lost(error.to_string());
            let bytes = response.into_body().collect().await.map_err(|error| lost(&error))?.to_bytes();
            Ok((status, serde_json::from_slice(&bytes).map_err(|error| lost(&error))?))
        };
        let answer = match timeout(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Lost("no answer in time".to_owned())),
        };
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Opens a watch, and returns its lines.
    ///
    /// # Errors
    /// When the watch cannot be opened. The inner error is the server's status.
    pub async fn watch(&mut self, path: &str) -> anyhow::Result<Result<Lines, StatusCode>> {
        let sent = timeout(Duration::from_secs(3), self.send(Method::GET, path, String::new())).await;
        let response = sent.context("the watch does not start")?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            self.connection = None;
            return Ok(Err(status));
        }
        let connection = self.connection.take().context("a connection that was just used")?;
        Ok(Ok(Lines { body: response.into_body(), rest: Vec::new(), _connection: connection }))
    }

    async fn send(&mut self, method: Method, path: &str, body: String) -> Result<http::Response<Incoming>, Failure> {
        let not_sent = |error: &dyn std::fmt::Display| Failure::NotSent(error.to_string());
        if self.connection.is_none() {
            let address = self.layout.places[self.member].api;
            let opened = timeout(CONNECT_DEADLINE, open(address, &self.credentials)).await;
            self.connection = Some(opened.map_err(|error| not_sent(&error))?.map_err(|error| not_sent(&error))?);
        }
        let Some(connection) = &mut self.connection else { return Err(not_sent(&"no connection")) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| not_sent(&error))?;
        connection.sender.ready().await.map_err(|error| not_sent(&error))?;
        connection.sender.send_request(request).await.map_err(|error| Failure::Lost(error.to_string()))
    }
}

async fn open(address: SocketAddr, credentials: &Credentials) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = credentials.0.connect(ServerName::try_from("localhost")?, stream).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let task = tokio::spawn(async move {
        // The next request reports the end of the connection.
        connection.await.ok();
    });
    Ok(Connection { sender, task })
}

/// Lines of a watch.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
    _connection: Connection,
}

impl Lines {
    /// Returns the next line; `None` when the server has ended the watch.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                Some(frame) => self.rest.extend_from_slice(frame?.data_ref().map_or(&[][..], AsRef::as_ref)),
                None => {
                    ensure!(self.rest.is_empty(), "the watch ended with a partial line");
                    return Ok(None);
                }
            }
        }
    }
}
