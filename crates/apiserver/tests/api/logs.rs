//! Container logs, fetched from a node that the test plays.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use quorate_apiserver::{MASTERS, certificate_user};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::harness::{DEADLINE, Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const LOG: &str = "one\ntwo\n";

/// A request as the node received it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    query: String,
    /// The client certificate is one that a node trusts.
    is_master: bool,
}

/// A node's log endpoint; dropping it stops it.
struct Node {
    asked: mpsc::UnboundedReceiver<Asked>,
    /// Lets a followed log continue.
    go_on: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Node {
    /// Starts the endpoint, and registers the node `worker` with its address.
    async fn start(server: &Server) -> Self {
        let (listener, acceptor) = server.node_api().await;
        let (sender, asked) = mpsc::unbounded_channel();
        let go_on = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, sender, Arc::clone(&go_on)));
        Node { asked, go_on, _tasks: tasks }
    }

    /// Returns the next request that the node received.
    async fn asked(&mut self) -> Asked {
        timeout(DEADLINE, self.asked.recv()).await.expect("a request in time").expect("the node runs")
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, asked: mpsc::UnboundedSender<Asked>, go_on: Arc<Notify>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (acceptor, asked, go_on) = (acceptor.clone(), asked.clone(), Arc::clone(&go_on));
        connections.spawn(async move {
            let stream = acceptor.accept(stream).await.expect("TLS");
            let chain = stream.get_ref().1.peer_certificates();
            let user = chain.and_then(|chain| chain.first()).and_then(certificate_user);
            let is_master = user.is_some_and(|user| user.is_in(MASTERS));
            let service = service_fn(move |request: Request<Incoming>| {
                let uri = request.uri();
                let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
                let answer = answer(&path, &query, &go_on);
                asked.send(Asked { path, query, is_master }).expect("the test listens");
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            // The API server closes the connection once it has the log, which is not an error.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Returns a log, or the node's error, by the name of the pod.
fn answer(path: &str, query: &str, go_on: &Arc<Notify>) -> Response<Body> {
    let (code, text): (u16, String) = match path.split('/').nth(3).unwrap_or_default() {
        "waiting" => (400, "container \"main\" in pod \"waiting\" is waiting to start: ErrImagePull".to_owned()),
        "refused" => (403, "Forbidden".to_owned()),
        "unknown" => {
            let status = json!({ "kind": "Status", "message": "pod \"unknown\" not found", "reason": "NotFound" });
            (404, status.to_string())
        }
        "broken" => (500, "the log is damaged\n".to_owned()),
        _ => (200, LOG.to_owned()),
    };
    let body = if query.contains("follow=true") {
        followed(Arc::clone(go_on))
    } else {
        Full::new(Bytes::from(text)).boxed_unsync()
    };
    Response::builder().status(code).body(body).expect("an answer")
}

/// Sends a first line at once, and a second one when the test says so.
fn followed(go_on: Arc<Notify>) -> Body {
    let second = async move {
        go_on.notified().await;
        "second\n"
    };
    let lines = stream::once(std::future::ready("first\n")).chain(stream::once(second));
    StreamBody::new(
        lines.map(|line: &'static str| Ok::<_, Infallible>(Frame::data(Bytes::from_static(line.as_bytes())))),
    )
    .boxed_unsync()
}

/// Creates a pod on the node, and returns the path of its log.
async fn pod_on_node(server: &Server, name: &str) -> String {
    let mut object = pod(name);
    object["spec"]["nodeName"] = "worker".into();
    server.admin().post(PODS, &object).await.expect(201);
    format!("{PODS}/{name}/log")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_a_log_reaches_the_node() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let path = pod_on_node(&server, "web").await;
    let cases = [
        ("", ""),
        ("container=main", ""),
        ("follow=false&previous=0&timestamps=false", ""),
        ("previous=true", "previous=true"),
        ("previous", "previous=true"),
        ("timestamps=1", "timestamps=true"),
        ("tailLines=0", "tailLines=0"),
        ("limitBytes=1", "limitBytes=1"),
        ("sinceSeconds=60", "sinceSeconds=60"),
        ("sinceTime=2026-01-01T00:00:00Z", "sinceTime=2026%2D01%2D01T00%3A00%3A00Z"),
        ("sinceTime=2026-01-01T02:00:00.5%2B02:00", "sinceTime=2026%2D01%2D01T00%3A00%3A00%2E5Z"),
        ("pretty=true&insecureSkipTLSVerifyBackend=true&colour=red", ""),
        (
            "limitBytes=100&timestamps=true&tailLines=3&sinceSeconds=9&container=main&previous=true&colour=red",
            "previous=true&timestamps=true&tailLines=3&limitBytes=100&sinceSeconds=9",
        ),
    ];
    for (given, passed_on) in cases {
        let answer = admin.get(&format!("{path}?{given}")).await;
        assert_eq!((answer.code, answer.text().as_str()), (200, LOG), "{given}");
        assert_eq!(answer.headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes()), Some(b"text/plain".as_slice()));
        let path = "/containerLogs/default/web/main".to_owned();
        assert_eq!(node.asked().await, Asked { path, query: passed_on.to_owned(), is_master: true }, "{given}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_options_are_refused_before_the_node_is_asked() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let path = pod_on_node(&server, "web").await;
    let invalid = |what: &str| (422, "Invalid", format!("PodLogOptions \"web\" is invalid: {what}"));
    let bad = |what: &str| (400, "BadRequest", what.to_owned());
    let cases = [
        ("tailLines=-1", invalid("tailLines: Invalid value: -1: must be greater than or equal to 0")),
        ("limitBytes=0", invalid("limitBytes: Invalid value: 0: must be greater than 0")),
        ("sinceSeconds=0", invalid("sinceSeconds: Invalid value: 0: must be greater than 0")),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            invalid(": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
        ),
        ("tailLines=few", bad("tailLines: invalid number \"few\" in the query")),
        ("limitBytes=1.5", bad("limitBytes: invalid number \"1.5\" in the query")),
        ("sinceSeconds=1m", bad("sinceSeconds: invalid number \"1m\" in the query")),
        ("sinceTime=yesterday", bad("sinceTime: invalid time \"yesterday\" in the query: ")),
        ("container=other", bad("container other is not valid for pod web")),
    ];
    for (given, (code, reason, message)) in cases {
        let refused = admin.get(&format!("{path}?{given}")).await.failure();
        assert_eq!((refused.0, refused.1.as_str()), (code, reason), "{given}");
        assert!(refused.2.starts_with(&message), "{given}: {}", refused.2);
    }
    assert_eq!(admin.get(&format!("{PODS}/absent/log")).await.failure().2, "pods \"absent\" not found");
    assert_eq!(admin.request(Method::POST, &path, &[], "").await.code, 405);
    // This request is the first that reaches the node.
    admin.get(&format!("{path}?tailLines=7")).await;
    assert_eq!(node.asked().await.query, "tailLines=7");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_responses_are_passed_on() {
    let server = Server::start().await;
    let admin = server.admin();
    let _node = Node::start(&server).await;
    let cases = [
        ("waiting", 400, "BadRequest", "container \"main\" in pod \"waiting\" is waiting to start: ErrImagePull"),
        ("refused", 403, "Forbidden", "Forbidden"),
        ("unknown", 404, "NotFound", "pod \"unknown\" not found"),
        ("broken", 500, "InternalError", "the log is damaged"),
    ];
    for (name, code, reason, message) in cases {
        let path = pod_on_node(&server, name).await;
        assert_eq!(admin.get(&path).await.failure(), (code, reason.to_owned(), message.to_owned()));
    }
    admin.post(PODS, &pod("unscheduled")).await.expect(201);
    let nothing = admin.get(&format!("{PODS}/unscheduled/log")).await;
    assert_eq!((nothing.code, nothing.text().as_str()), (200, ""), "an unscheduled pod has no log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_arrives_line_by_line() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let path = pod_on_node(&server, "web").await;
    let request = Request::get(format!("{path}?follow=true")).header(header::HOST, "127.0.0.1");
    let answer = admin.send(request.body(Full::default()).expect("a request")).await;
    assert_eq!((answer.status().as_u16(), node.asked().await.query.as_str()), (200, "follow=true"));
    let mut body = answer.into_body();
    let first = timeout(DEADLINE, body.frame()).await.expect("a line in time").expect("a line").expect("it is read");
    assert_eq!(first.into_data().ok(), Some(Bytes::from_static(b"first\n")));
    node.go_on.notify_one();
    let rest = timeout(DEADLINE, body.collect()).await.expect("an end in time").expect("it is read");
    assert_eq!(rest.to_bytes(), Bytes::from_static(b"second\n"));
}
