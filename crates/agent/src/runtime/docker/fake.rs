//! A Docker engine for tests: a socket behind which a closure answers.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

pub(crate) fn json(status: u16, body: impl Into<Bytes>) -> Answer {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(body.into()).boxed()).expect("a response")
}

/// Listens in `dir` until the test ends, and returns the path of the socket.
pub(crate) fn serve(
    dir: &tempfile::TempDir,
    answer: impl Fn(&Request<Incoming>) -> Answer + Send + Sync + 'static,
) -> String {
    let socket = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let response = answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    socket.to_str().expect("a path of letters").to_owned()
}
