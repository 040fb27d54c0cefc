//! The proxies of pods, services and nodes, to a node and a pod that the test plays.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Answer, Client, DEADLINE, Server, pod};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PAGE: &str = r#"<!doctype html><a href="/rewriteme">test</a><a href="there">"#;
/// Larger than the smallest response that this server compresses, and than the largest body that it reads itself.
const LARGE_BYTES: usize = 10 << 20;

/// A node whose pods all run the same server; dropping it stops it.
struct Node {
    /// The path of each request to the node API.
    asked: mpsc::UnboundedReceiver<String>,
    state: State,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct State {
    asked: mpsc::UnboundedSender<String>,
    /// Lets a slow response continue.
    go_on: Arc<Notify>,
    /// A connection to a pod has ended.
    ended: Arc<Notify>,
}

impl Node {
    async fn start(server: &Server) -> Self {
        let (listener, acceptor) = server.node_api().await;
        let (sender, asked) = mpsc::unbounded_channel();
        let state = State { asked: sender, go_on: Arc::default(), ended: Arc::default() };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, state.clone()));
        Node { asked, state, _tasks: tasks }
    }

    async fn asked(&mut self) -> String {
        timeout(DEADLINE, self.asked.recv()).await.expect("a request in time").expect("the node runs")
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: State) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (acceptor, state) = (acceptor.clone(), state.clone());
        connections.spawn(async move {
            let stream = acceptor.accept(stream).await.expect("TLS");
            let service = service_fn(move |request: Request<Incoming>| {
                let state = state.clone();
                async move {
                    state.asked.send(request.uri().to_string()).expect("the test listens");
                    Ok::<_, Infallible>(match request.uri().path().starts_with("/dial/") {
                        true => dial(request, state),
                        false => backend(request, state).await,
                    })
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            // The API server closes the connection with its client's.
            drop(connection.await);
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Connects to a pod, whose server runs in a task of its own.
fn dial(request: Request<Incoming>, state: State) -> Response<Body> {
    if request.uri().path().contains("refused") {
        let refusal = Response::builder().status(StatusCode::BAD_GATEWAY);
        return refusal.body(full("dial tcp 10.0.0.1:80: Connection refused (os error 111)")).expect("a response");
    }
    assert_eq!(request.headers()[header::UPGRADE], "tcp");
    tokio::spawn(async move {
        let connection = hyper::upgrade::on(request).await.expect("an upgrade");
        let inner = state.clone();
        let service = service_fn(move |request| {
            let state = inner.clone();
            async move { Ok::<_, Infallible>(backend(request, state).await) }
        });
        drop(http1::Builder::new().serve_connection(connection, service).with_upgrades().await);
        state.ended.notify_one();
    });
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let switching = switching.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
    switching.body(full("")).expect("a response")
}

/// The server in the pods. It answers most requests with what it got.
async fn backend(mut request: Request<Incoming>, state: State) -> Response<Body> {
    let response = Response::builder().header("x-own", "kept").header("access-control-allow-origin", "*");
    let html = |encoding: &str, bytes: Vec<u8>| {
        let page = Response::builder().header(header::CONTENT_TYPE, "text/html; charset=utf-8");
        page.header(header::CONTENT_ENCODING, encoding).body(full(bytes))
    };
    let response = match request.uri().path() {
        "/page" => html("identity", PAGE.into()),
        "/compressed" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(PAGE.as_bytes()).expect("memory");
            html("gzip", encoder.finish().expect("memory"))
        }
        "/redirect" => response.status(302).header(header::LOCATION, "/elsewhere?a=b").body(full("")),
        "/missing" => response.status(404).body(full("no such page")),
        "/large" => response.body(full(vec![b'x'; LARGE_BYTES])),
        "/slow" => {
            let second = async move {
                state.go_on.notified().await;
                Bytes::from_static(b"second")
            };
            let pieces = stream::once(std::future::ready(Bytes::from_static(b"first"))).chain(stream::once(second));
            response.body(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync())
        }
        "/never" => {
            state.asked.send("/never".to_owned()).expect("the test listens");
            state.go_on.notified().await;
            response.body(full("late"))
        }
        "/socket" => {
            tokio::spawn(echo(hyper::upgrade::on(&mut request)));
            let protocol = request.headers()[header::UPGRADE].clone();
            response.status(101).header(header::CONNECTION, "upgrade").header(header::UPGRADE, protocol).body(full(""))
        }
        _ => {
            let headers = request.headers().iter();
            let headers: Map<String, Value> =
                headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").into())).collect();
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let text = if body.len() > 1000 { "large".into() } else { String::from_utf8_lossy(&body) };
            let echoed = json!({ "method": method, "uri": uri, "headers": headers, "body": text, "size": body.len() });
            response.header(header::CONTENT_TYPE, "application/json").body(full(echoed.to_string()))
        }
    };
    response.expect("a response")
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let mut io = TokioIo::new(upgrade.await.expect("an upgrade"));
    let mut buffer = [0; 64];
    while let Ok(read @ 1..) = io.read(&mut buffer).await {
        if io.write_all(&buffer[..read]).await.is_err() || io.flush().await.is_err() {
            break;
        }
    }
}

/// Creates a pod on the node, with this address unless it is empty. Returns the path of its proxy.
async fn pod_on_node(admin: &Client, name: &str, ip: &str) -> String {
    let mut object = pod(name);
    object["spec"]["nodeName"] = "worker".into();
    object["spec"]["containers"][0]["ports"] = json!([{ "name": "web", "containerPort": 8080 }]);
    admin.post(&format!("{NAMESPACE}/pods"), &object).await.expect(201);
    if !ip.is_empty() {
        let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
        admin.patch(&format!("{NAMESPACE}/pods/{name}/status"), "merge", &status).await.expect(200);
    }
    format!("{NAMESPACE}/pods/{name}/proxy")
}

/// Creates a service with its endpoints, and returns the path of its proxy.
async fn service(admin: &Client, name: &str, ports: Value, subsets: Value) -> String {
    let service =
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": { "ports": ports } });
    admin.post(&format!("{NAMESPACE}/services"), &service).await.expect(201);
    if !subsets.is_null() {
        let endpoints =
            json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": name }, "subsets": subsets });
        admin.post(&format!("{NAMESPACE}/endpoints"), &endpoints).await.expect(201);
    }
    format!("{NAMESPACE}/services/{name}/proxy")
}

fn endpoint(name: &str, ip: &str) -> Value {
    json!({ "ip": ip, "targetRef": { "kind": "Pod", "namespace": "default", "name": name } })
}

async fn ask(client: &Client, path: &str) -> Answer {
    client.request(Method::GET, path, &[("accept-encoding", "gzip")], "").await
}

fn text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_method_are_passed_on() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let pod = pod_on_node(&admin, "web", "10.0.0.1").await;
    let subsets = json!([
        { "addresses": [endpoint("web", "10.0.0.1")], "ports": [{ "name": "web", "port": 8081 }] },
        { "notReadyAddresses": [endpoint("web", "10.0.0.1")], "ports": [{ "name": "web", "port": 1 }] },
    ]);
    let ports = json!([{ "name": "web", "port": 80, "targetPort": 8081 }]);
    let service = service(&admin, "front", ports, subsets).await;
    let node_proxy = "/api/v1/nodes/worker/proxy".to_owned();
    let cases = [
        (pod.clone(), "/dial/default/web/8080"),
        (pod.replace("/web/", "/web:81/"), "/dial/default/web/81"),
        (pod.replace("/web/", "/https:web:/"), "/dial/default/web/8080?tls=true"),
        (service.clone(), "/dial/default/web/8081"),
        (service.replace("/front/", "/front:web/"), "/dial/default/web/8081"),
        (service.replace("/front/", "/https%3Afront%3A80/"), "/dial/default/web/8081?tls=true"),
        (node_proxy, ""),
    ];
    for (proxy, dialled) in cases {
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
            for (tail, uri) in [("", "/"), ("/a//b%2Fc/", "/a//b%2Fc/"), ("?d=e&%ff", "/?d=e&%ff")] {
                let body = if ["PATCH", "POST", "PUT"].contains(&method) { "hello" } else { "" };
                let name: Method = method.parse().expect("a method");
                let answer = admin.request(name, &format!("{proxy}{tail}"), &[], body).await;
                let is_read = ["GET", "HEAD"].contains(&method);
                if is_read && !tail.starts_with('/') {
                    let location = format!("{proxy}/{tail}");
                    assert_eq!((answer.code, text(&answer, "location")), (301, location.as_str()), "{proxy}{tail}");
                    assert!(answer.bytes.is_empty());
                    continue;
                }
                assert_eq!(answer.code, 200, "{method} {proxy}{tail}: {}", answer.text());
                let asked = node.asked().await;
                assert_eq!(asked, if dialled.is_empty() { uri } else { dialled }, "{method} {proxy}{tail}");
                assert_eq!((text(&answer, "x-own"), text(&answer, "access-control-allow-origin")), ("kept", ""));
                if method == "HEAD" {
                    assert!(answer.bytes.is_empty());
                    continue;
                }
                let got = answer.json();
                assert_eq!((&got["method"], &got["uri"], &got["body"]), (&json!(method), &json!(uri), &json!(body)));
                assert_eq!(
                    got["headers"]["x-forwarded-uri"],
                    format!("{proxy}{}", tail.split('?').next().unwrap_or_default())
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_here() {
    let server = Server::start().await;
    let admin = server.admin();
    let _node = Node::start(&server).await;
    let proxy = pod_on_node(&admin, "web", "10.0.0.1").await;
    let given = [
        ("authorization", "Bearer secret"),
        ("impersonate-user", "somebody"),
        ("cookie", "a=b"),
        ("accept", "application/vnd.kubernetes.protobuf"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let got = admin.request(Method::GET, &format!("{proxy}/"), &given, "").await.expect(200);
    let expected = json!({
        "host": "127.0.0.1", "cookie": "a=b", "accept": "application/vnd.kubernetes.protobuf",
        "x-forwarded-for": "127.0.0.1", "x-forwarded-host": "127.0.0.1", "x-forwarded-proto": "https",
        "x-forwarded-uri": format!("{proxy}/"),
    });
    assert_eq!(got["headers"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_lead_back_through_the_proxy() {
    let server = Server::start().await;
    let admin = server.admin();
    let _node = Node::start(&server).await;
    let proxy = pod_on_node(&admin, "web", "10.0.0.1").await;
    let page = PAGE.replace("/rewriteme", &format!("{proxy}/rewriteme"));
    for path in ["page", "compressed"] {
        let answer = ask(&admin, &format!("{proxy}/{path}")).await;
        assert_eq!((answer.code, answer.text()), (200, page.clone()), "{path}");
        assert_ne!(text(&answer, "content-encoding"), "gzip");
    }
    let head = admin.request(Method::HEAD, &format!("{proxy}/page"), &[], "").await;
    assert_eq!((head.code, text(&head, "content-length")), (200, ""), "the length of the rewritten page is not known");
    let redirect = ask(&admin, &format!("{proxy}/redirect")).await;
    assert_eq!((redirect.code, text(&redirect, "location")), (302, format!("{proxy}/elsewhere?a=b").as_str()));
    let missing = ask(&admin, &format!("{proxy}/missing")).await;
    assert_eq!((missing.code, missing.text().as_str()), (404, "no such page"), "the backend's errors are its own");
    let large = ask(&admin, &format!("{proxy}/large")).await;
    assert_eq!((large.bytes.len(), text(&large, "content-encoding")), (LARGE_BYTES, ""), "it is not compressed");
    assert_eq!(text(&large, "content-length"), LARGE_BYTES.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_streamed_and_a_client_that_goes_away_ends_the_exchange() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let proxy = pod_on_node(&admin, "web", "10.0.0.1").await;
    let got = admin.request(Method::POST, &format!("{proxy}/"), &[], vec![b'x'; LARGE_BYTES]).await.expect(200);
    assert_eq!(
        (&got["size"], &got["headers"]["content-length"]),
        (&json!(LARGE_BYTES), &json!(LARGE_BYTES.to_string()))
    );
    timeout(DEADLINE, node.state.ended.notified()).await.expect("the connection ends with the response");

    let get = |path: &str| {
        let request = Request::get(format!("{proxy}/{path}")).header(header::HOST, "127.0.0.1");
        request.body(Full::default()).expect("a request")
    };
    let mut body = admin.send(get("slow")).await.into_body();
    let first = timeout(DEADLINE, body.frame()).await.expect("a piece in time").expect("a piece").expect("it is read");
    assert_eq!(first.into_data().ok(), Some(Bytes::from_static(b"first")));
    node.state.go_on.notify_one();
    let rest = timeout(DEADLINE, body.collect()).await.expect("an end in time").expect("it is read");
    assert_eq!(rest.to_bytes(), Bytes::from_static(b"second"));
    timeout(DEADLINE, node.state.ended.notified()).await.expect("the connection ends with the response");

    let mut body = admin.send(get("slow")).await.into_body();
    timeout(DEADLINE, body.frame()).await.expect("a piece in time");
    drop(body);
    timeout(DEADLINE, node.state.ended.notified()).await.expect("the connection ends with the client");

    let mut waiting = Box::pin(admin.send(get("never")));
    loop {
        tokio::select! {
            answer = &mut waiting => panic!("there is no response yet: {answer:?}"),
            asked = node.asked() => if asked == "/never" { break },
        }
    }
    drop(waiting);
    timeout(DEADLINE, node.state.ended.notified()).await.expect("it ends with a client that waits, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgraded_connections_are_passed_on() {
    let server = Server::start().await;
    let admin = server.admin();
    let _node = Node::start(&server).await;
    let pod = pod_on_node(&admin, "web", "10.0.0.1").await;
    for proxy in [pod.as_str(), "/api/v1/nodes/worker/proxy"] {
        let request = Request::get(format!("{proxy}/socket"))
            .header(header::HOST, "127.0.0.1")
            .header(header::CONNECTION, "keep-alive, Upgrade")
            .header(header::UPGRADE, "own/1");
        let answer = admin.send(request.body(Full::default()).expect("a request")).await;
        assert_eq!(
            (answer.status(), &answer.headers()[header::UPGRADE]),
            (StatusCode::SWITCHING_PROTOCOLS, &HeaderValue::from_static("own/1"))
        );
        let mut io = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
        io.write_all(b"hello").await.expect("sent");
        io.flush().await.expect("sent");
        let mut echoed = [0; 5];
        timeout(DEADLINE, io.read_exact(&mut echoed)).await.expect("in time").expect("an echo");
        assert_eq!(&echoed, b"hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_cuts_responses_off() {
    let mut server = Server::start().await;
    let admin = server.admin();
    let _node = Node::start(&server).await;
    let proxy = pod_on_node(&admin, "web", "10.0.0.1").await;
    let request = Request::get(format!("{proxy}/slow")).header(header::HOST, "127.0.0.1");
    let mut body = admin.send(request.body(Full::default()).expect("a request")).await.into_body();
    timeout(DEADLINE, body.frame()).await.expect("a piece in time");
    server.shutdown.cancel();
    server.ended().await;
    timeout(DEADLINE, body.collect()).await.expect("an end in time").expect_err("the response does not look whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_backend_are_refused_with_a_status() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    pod_on_node(&admin, "web", "10.0.0.1").await;
    pod_on_node(&admin, "local", "127.0.0.1").await;
    pod_on_node(&admin, "new", "").await;
    let http = || json!([{ "port": 80 }]);
    service(&admin, "none", http(), json!(null)).await;
    service(&admin, "empty", http(), json!([])).await;
    let outside = json!([{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "port": 80 }] }]);
    service(&admin, "outside", http(), outside).await;
    let foreign = json!([{ "addresses": [endpoint("web", "10.0.0.99")], "ports": [{ "port": 80 }] }]);
    service(&admin, "foreign", http(), foreign).await;
    let not_ready = json!([{ "notReadyAddresses": [endpoint("web", "10.0.0.1")], "ports": [{ "port": 80 }] }]);
    service(&admin, "unready", http(), not_ready).await;
    let (bad, none) = ("BadRequest", "ServiceUnavailable");
    let cases = [
        ("pods/absent", 404, "NotFound", "pods \"absent\" not found"),
        ("pods/new", 400, bad, "address not allowed"),
        ("pods/local", 400, bad, "address not allowed"),
        ("pods/ftp:web:80", 400, bad, "invalid pod request \"ftp:web:80\""),
        ("pods/web:http", 400, bad, "invalid pod request \"web:http\": the port must be a number from 1 to 65535"),
        ("services/absent", 404, "NotFound", "services \"absent\" not found"),
        ("services/none", 503, none, "no endpoints available for service \"none\""),
        ("services/empty", 503, none, "no endpoints available for service \"empty\""),
        ("services/unready", 503, none, "no endpoints available for service \"unready\""),
        ("services/none:81", 503, none, "no service port 81 found for service \"none\""),
        (
            "services/outside",
            503,
            none,
            "no endpoints available for service \"outside\": none of them is a pod of its namespace",
        ),
        (
            "services/foreign",
            503,
            none,
            "no endpoints available for service \"foreign\": none of them is a pod of its namespace",
        ),
    ];
    for (name, code, reason, message) in cases {
        let refused = admin.get(&format!("{NAMESPACE}/{name}/proxy/")).await.failure();
        assert_eq!(refused, (code, reason.to_owned(), message.to_owned()), "{name}");
    }
    let refused = admin.get("/api/v1/nodes/absent/proxy/healthz").await.failure();
    assert_eq!((refused.0, refused.2.as_str()), (404, "nodes \"absent\" not found"));
    let refused = admin.get("/api/v1/nodes/worker:80/proxy/healthz").await.failure();
    assert!(refused.0 == 400 && refused.2.starts_with("port 80 of node worker cannot be proxied to"), "{}", refused.2);
    let trace = admin.request(Method::TRACE, &format!("{NAMESPACE}/pods/web/proxy/"), &[], "").await;
    assert_eq!(trace.code, 405);
    for path in [format!("{NAMESPACE}/pods/web/proxy/"), "/api/v1/nodes/worker/proxy/pods".to_owned()] {
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            for client in [server.node("worker"), server.user("somebody")] {
                let refused = client.request(method.clone(), &path, &[], "").await;
                assert_eq!(refused.failure().0, 403, "{method} {path}");
            }
        }
        assert_eq!(server.anonymous().get(&path).await.code, 401);
    }
    assert!(node.asked.try_recv().is_err(), "the node has not been asked");

    let refused = pod_on_node(&admin, "refused", "10.0.0.1").await;
    // The whole body is read, so that the client sees the response.
    let answer = admin.request(Method::PUT, &format!("{refused}/"), &[], vec![b'x'; 1 << 20]).await.failure();
    let why = "error trying to reach service: dial tcp 10.0.0.1:80: Connection refused (os error 111)";
    assert_eq!(answer, (503, none.to_owned(), why.to_owned()));
}
