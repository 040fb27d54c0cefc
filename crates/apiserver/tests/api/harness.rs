//! A server over the in-memory store with real TLS, and a client that returns the raw responses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use quorate_apiserver::{Api, Deadlines, ServerConfig, UserInfo, bootstrap, client_config, serve, server_config};
use quorate_pki::LiveIdentity;
use quorate_store::Store;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// A certificate authority that signs the test's certificates.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub authority_pem: String,
    authority_der: Vec<u8>,
}

/// A certificate and its key, both PEM.
pub struct Identity {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

impl Identity {
    pub fn live(&self) -> Arc<LiveIdentity> {
        LiveIdentity::from_pem(&self.certificate_pem, &self.key_pem).expect("certificate and key match")
    }
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let certificate = params.self_signed(&key).expect("a certificate");
        Pki {
            authority_pem: certificate.pem(),
            authority_der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn sign(&self, name: &str, groups: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate_pem: certificate.pem().into_bytes(), key_pem: key.serialize_pem().into_bytes() }
    }
}

/// A running server; dropping it stops it.
pub struct Server {
    pub api: Api,
    pub pki: Pki,
    pub port: u16,
    pub shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Server {
    pub async fn start() -> Self {
        Server::start_with(ServerConfig::DEFAULT_MAX_IN_FLIGHT, Deadlines::default()).await
    }

    pub async fn start_with(max_in_flight: usize, deadlines: Deadlines) -> Self {
        let api = Api::new(Store::memory(), quorate_registry::builtin());
        bootstrap(&api).await.expect("the cluster's first objects");
        let pki = Pki::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let config = ServerConfig {
            listener,
            identity: pki.sign("quorate:server", &[]).live(),
            client_authority_pem: pki.authority_pem.clone().into_bytes(),
            node_client: Some(pki.sign("quorate:apiserver", &["system:masters"]).live()),
            max_in_flight,
            deadlines,
        };
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let serving = serve(api.clone(), config, shutdown.clone());
        tasks.spawn(async move { serving.await.expect("the server starts") });
        Server { api, pki, port, shutdown, tasks }
    }

    /// Waits until the server has stopped.
    pub async fn ended(&mut self) {
        let ended = timeout(DEADLINE, self.tasks.join_next()).await.expect("the server ends in time");
        ended.expect("it ran").expect("it did not panic");
    }

    /// Registers the node `worker`, and returns the listener and the TLS of its node API.
    pub async fn node_api(&self) -> (TcpListener, TlsAcceptor) {
        let identity = self.pki.sign("system:node:worker", &["system:nodes"]);
        let tls = server_config(identity.live(), self.pki.authority_pem.as_bytes()).expect("a node's TLS");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "worker" },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            },
        });
        self.admin().post("/api/v1/nodes", &node).await.expect(201);
        (listener, TlsAcceptor::from(Arc::new(tls)))
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn admin(&self) -> Client {
        self.client(Some(self.pki.sign("kubernetes-admin", &["system:masters"])))
    }

    pub fn node(&self, name: &str) -> Client {
        self.client(Some(self.pki.sign(&format!("system:node:{name}"), &["system:nodes"])))
    }

    pub fn user(&self, name: &str) -> Client {
        self.client(Some(self.pki.sign(name, &[])))
    }

    pub fn anonymous(&self) -> Client {
        self.client(None)
    }

    /// Sends bytes as the administrator, and returns what the server sends until it closes the connection. It may close it
    /// before it has read everything.
    pub async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.admin().raw().await;
        let mut answer = Vec::new();
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        let sent = async {
            if writing.write_all(bytes).await.is_ok() {
                drop(writing.flush().await);
            }
        };
        let both = async { tokio::join!(sent, reading.read_to_end(&mut answer)).1 };
        drop(timeout(DEADLINE, both).await.expect("the server closes the connection"));
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn client(&self, identity: Option<Identity>) -> Client {
        let authority = self.pki.authority_pem.as_bytes();
        let config = match identity {
            Some(identity) => client_config(identity.live(), authority).expect("a client's TLS"),
            None => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(self.pki.authority_der.clone().into()).expect("the authority");
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .expect("protocol versions")
                    .with_root_certificates(roots)
                    .with_no_client_auth()
            }
        };
        Client { port: self.port, connector: TlsConnector::from(Arc::new(config)) }
    }

    /// Returns the official Rust client, as the administrator.
    pub fn kube(&self) -> kube::Client {
        let identity = self.pki.sign("kubernetes-admin", &["system:masters"]);
        let encode = |pem: &[u8]| base64::engine::general_purpose::STANDARD.encode(pem);
        let mut config = kube::Config::new(self.url().parse().expect("a URL"));
        config.root_cert = Some(vec![self.pki.authority_der.clone()]);
        config.auth_info.client_certificate_data = Some(encode(&identity.certificate_pem));
        config.auth_info.client_key_data = Some(encode(&identity.key_pem).into());
        kube::Client::try_from(config).expect("a client")
    }

    /// Writes a kubeconfig of the administrator to `directory`.
    pub fn kubeconfig(&self, directory: &std::path::Path) -> PathBuf {
        let identity = self.pki.sign("kubernetes-admin", &["system:masters"]);
        let encode = |pem: &[u8]| base64::engine::general_purpose::STANDARD.encode(pem);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": self.url(), "certificate-authority-data": encode(self.pki.authority_pem.as_bytes()),
            }}],
            "users": [{ "name": "test", "user": {
                "client-certificate-data": encode(&identity.certificate_pem),
                "client-key-data": encode(&identity.key_pem),
            }}],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        let path = directory.join("kubeconfig");
        std::fs::write(&path, config.to_string()).expect("the kubeconfig is written");
        path
    }
}

/// Returns the in-process client of the administrator.
pub fn local(api: &Api) -> quorate_apiserver::LocalClient {
    quorate_apiserver::LocalClient::new(api.clone(), UserInfo::master("test"))
}

/// Sends single requests and returns the responses.
#[derive(Clone)]
pub struct Client {
    port: u16,
    connector: TlsConnector,
}

/// A response with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("not JSON ({e}): {:?}", self.bytes))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns the JSON body of a response that must have this code.
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text());
        self.json()
    }

    /// Returns a failed response's code, reason and message.
    pub fn failure(&self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["code"], self.code, "{status}");
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        (self.code, text("reason"), text("message"))
    }
}

impl Client {
    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let tls = self.raw().await;
        let (sender, connection) = handshake(TokioIo::new(tls)).await.expect("HTTP");
        // The task ends when the sender and the body are dropped.
        tokio::spawn(connection.with_upgrades());
        sender
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut sender = self.connect().await;
        timeout(DEADLINE, sender.send_request(request)).await.expect("an answer in time").expect("an answer")
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.send(request.body(Full::new(body.into())).expect("a request")).await;
        let (parts, body) = answer.into_parts();
        let bytes = timeout(DEADLINE, body.collect()).await.expect("a body in time").expect("a body").to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// Opens a connection without HTTP.
    pub async fn raw(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.expect("the server accepts");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        self.connector.connect(name, tcp).await.expect("TLS")
    }

    /// Begins a request whose body never ends. The connection stands until the returned stream is dropped.
    pub async fn stall(&self, path: &str) -> TlsStream<TcpStream> {
        let mut tls = self.raw().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{{");
        tls.write_all(head.as_bytes()).await.expect("it is sent");
        tls.flush().await.expect("it is sent");
        tls
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.request(Method::GET, path, &[("accept", accept)], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let content_type = format!("application/{kind}-patch+json");
        self.request(Method::PATCH, path, &[("content-type", &content_type)], body.to_string()).await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.request(Method::DELETE, path, &[("content-type", "application/json")], options.to_string()).await
    }

    /// Starts a watch.
    pub async fn watch(&self, path: &str) -> Lines {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Lines {
        let request = Request::get(path).header(header::HOST, "127.0.0.1").header(header::ACCEPT, accept);
        let answer = self.send(request.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.status(), 200, "the watch starts");
        Lines { body: answer.into_body(), buffer: Vec::new() }
    }
}

/// The events of a watch.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// Returns the next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event is JSON"));
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("an event in time")?;
            let frame = frame.expect("the stream goes on");
            self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        }
    }

    /// Returns the type of the next event, and its object's name.
    pub async fn named(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

/// Returns a pod that passes validation.
pub fn pod(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    })
}

pub fn config_map(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "key": "value" },
    })
}

pub fn deployment(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
            },
        },
    })
}
