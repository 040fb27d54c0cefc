//! Tests of the response budget, with many clients that request large ranges and do not read the responses.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use etcd_client::{Client, GetOptions, GetResponse, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use quorate_etcd::pb::etcdserverpb as pb;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::served::{refusal, start};

const VALUE_BYTES: usize = 100 << 10;
/// Budget for responses: two responses of four keys fit, with less than one key to spare.
const BUDGET_BYTES: usize = 850 << 10;
/// HTTP/2 window of the clients, which bounds the bytes that a client receives without reading.
const WINDOW_BYTES: u32 = 16 << 10;
/// The gRPC status code `ResourceExhausted`.
const EXHAUSTED: &str = "8";

async fn fill(client: &mut Client, prefix: &str, keys: u8) {
    for key in 0..keys {
        client.put(format!("{prefix}{key:02}"), vec![key; VALUE_BYTES], None).await.expect("a put");
    }
}

fn whole() -> GetOptions {
    GetOptions::new().with_prefix()
}

/// A client on its own connection that has requested all keys of `big/` and has read only the headers.
struct Reader {
    response: Response<Incoming>,
    _requests: http2::SendRequest<Body>,
}

impl Reader {
    async fn ask(address: &str) -> Reader {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (mut requests, connection) = builder.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let range = pb::RangeRequest { key: "big/".into(), range_end: "big0".into(), ..pb::RangeRequest::default() };
        let message = range.encode_to_vec();
        let length = u32::try_from(message.len()).expect("a length");
        let framed = [&[0_u8][..], &length.to_be_bytes(), &message].concat();
        let request = Request::post(format!("http://{address}/etcdserverpb.KV/Range"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(framed))
            .expect("a request");
        let response = requests.send_request(request).await.expect("headers");
        Reader { response, _requests: requests }
    }

    /// Returns the status of a refusal. A response with a body has its status in the trailers, so this is `None`.
    fn refusal(&self) -> Option<&str> {
        self.response.headers().get("grpc-status").map(|status| status.to_str().expect("text"))
    }

    /// Repeats the request until budget is left: the server releases it when it notices that a client has disconnected.
    async fn ask_until_answered(address: &str) -> Reader {
        let answered = async {
            loop {
                let reader = Reader::ask(address).await;
                if reader.refusal().is_none() {
                    return reader;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), answered).await.expect("budget is released")
    }

    async fn read(self) -> pb::RangeResponse {
        let body = to_bytes(Body::new(self.response.into_body()), usize::MAX).await.expect("the rest of the answer");
        pb::RangeResponse::decode(&body[5..]).expect("an answer")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_are_bounded() {
    let mut served = start(BUDGET_BYTES).await;
    let client = &mut served.client;
    fill(client, "big/", 4).await;
    client.put("small", "x", None).await.expect("a put");
    let address = &served.address;

    // Two responses fit into the budget, and one may exceed it.
    let mut readers = Vec::new();
    for place in 0..3 {
        let reader = Reader::ask(address).await;
        assert_eq!(reader.refusal(), None, "reader {place}");
        readers.push(reader);
    }
    for _ in 0..20 {
        assert_eq!(Reader::ask(address).await.refusal(), Some(EXHAUSTED));
    }
    let read = || TxnOp::get("big/", Some(whole()));
    for refused in [
        refusal(client.get("big/", Some(whole())).await),
        refusal(client.get("big/", Some(whole().with_sort(SortTarget::Mod, SortOrder::Descend))).await),
        refusal(client.get("big/00", None).await),
        refusal(client.txn(Txn::new().and_then([read()])).await),
        refusal(client.kv_client().get_stream("big/", Some(whole())).await),
    ] {
        assert_eq!(refused, ("ResourceExhausted".to_owned(), "etcdserver: too many requests".to_owned()));
    }
    // Small reads are still answered, and so are writes, even with large responses.
    assert_eq!(client.get("small", None).await.expect("a key").kvs()[0].value(), b"x");
    assert_eq!(client.get("big/", Some(whole().with_count_only())).await.expect("a count").count(), 4);
    assert_eq!(client.get("big/", Some(whole().with_keys_only())).await.expect("keys").kvs().len(), 4);
    let written = client.txn(Txn::new().and_then([TxnOp::put("small", "y", None), read()])).await.expect("it is done");
    assert!(matches!(&written.op_responses()[1], TxnOpResponse::Get(found) if found.kvs().len() == 4));

    // A client that reads its response gets all of it and releases its budget.
    let found = readers.remove(0).read().await;
    assert_eq!((found.count, found.more, found.kvs.len()), (4, false, 4));
    assert!(found.kvs.iter().zip(0_u8..).all(|(kv, key)| kv.value == vec![key; VALUE_BYTES]));
    readers.push(Reader::ask_until_answered(address).await);
    assert_eq!(Reader::ask(address).await.refusal(), Some(EXHAUSTED));

    // A client that disconnects releases its budget too.
    readers.clear();
    for _ in 0..3 {
        readers.push(Reader::ask_until_answered(address).await);
    }
    assert_eq!(Reader::ask(address).await.refusal(), Some(EXHAUSTED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_larger_than_the_budget_is_complete() {
    let mut served = start(BUDGET_BYTES).await;
    let client = &mut served.client;
    fill(client, "long/", 20).await;
    let counted = client.get("long/", Some(whole().with_count_only())).await.expect("a count");
    let old = counted.header().expect("a header").revision();
    client.put("long/03", "new", None).await.expect("a put");
    client.delete("long/15", None).await.expect("a deletion");
    let now = old + 2;

    let newest: Vec<u8> = (0..20).filter(|key| *key != 15).collect();
    let descending = whole().with_sort(SortTarget::Key, SortOrder::Descend);
    for (options, keys, more, count, at) in [
        (whole(), newest.clone(), false, 19, now),
        (whole().with_limit(18), newest[..18].to_vec(), true, 19, now),
        (whole().with_limit(19), newest.clone(), false, 19, now),
        (whole().with_limit(3), newest[..3].to_vec(), true, 19, now),
        (whole().with_revision(old), (0..20).collect(), false, 20, old),
        (whole().with_revision(old).with_limit(16), (0..16).collect(), true, 20, old),
        (descending.clone(), newest.iter().rev().copied().collect(), false, 19, now),
        (descending.with_limit(17), newest[2..].iter().rev().copied().collect(), true, 19, now),
        (whole().with_max_mod_revision(old), newest.iter().copied().filter(|key| *key != 3).collect(), false, 19, old),
    ] {
        let found = client.get("long/", Some(options.clone())).await.expect("a range");
        assert_eq!((key_numbers(&found), found.more(), found.count()), (keys, more, count), "{options:?}");
        for (kv, key) in found.kvs().iter().zip(key_numbers(&found)) {
            let value = if kv.mod_revision() > old { b"new".to_vec() } else { vec![key; VALUE_BYTES] };
            assert!(kv.value() == value && kv.mod_revision() <= at, "{key} of {options:?}");
        }
    }
    let keys = client.get("long/", Some(whole().with_keys_only())).await.expect("keys");
    assert!(key_numbers(&keys) == newest && keys.kvs().iter().all(|kv| kv.value().is_empty()));
}

fn key_numbers(found: &GetResponse) -> Vec<u8> {
    found.kvs().iter().map(|kv| kv.key_str().expect("text")[5..].parse().expect("a number")).collect()
}
