//! Tests of all services, except for the response budget, which `answers` tests.

use etcd_client::{
    AlarmAction, AlarmType, CompactionOptions, Compare, CompareOp, EventType, GetOptions, LeaseGrantOptions,
    LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType,
    WatchOptions, WatchResponse, WatchStream,
};
use quorate_etcd::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::served::{self, Served, refusal};

async fn start() -> Served {
    served::start(ServerConfig::DEFAULT_ANSWERS_BYTES).await
}

async fn next(watch: &mut WatchStream) -> WatchResponse {
    watch.message().await.expect("an answer").expect("a running stream")
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_sorted_filtered_limited_and_historical() {
    let mut served = start().await;
    let client = &mut served.client;
    // (key, values in the order in which they are put)
    for (key, value) in [("r/a", "3"), ("r/b", "1"), ("r/c", "2"), ("r/b", "5"), ("r/c", "0"), ("r/b", "4")] {
        client.put(key, value, None).await.expect("a put");
    }
    let found = |options: GetOptions| {
        let mut client = client.clone();
        async move {
            let found = client.get("r/", Some(options.with_prefix())).await.expect("a range");
            let keys: Vec<String> = found.kvs().iter().map(|kv| kv.key_str().expect("text")[2..].to_owned()).collect();
            (keys.concat(), found.more(), found.count())
        }
    };
    let plain = GetOptions::new;
    for (target, order, expected) in [
        (SortTarget::Key, SortOrder::Ascend, "abc"),
        (SortTarget::Key, SortOrder::Descend, "cba"),
        (SortTarget::Key, SortOrder::None, "abc"),
        (SortTarget::Version, SortOrder::Ascend, "acb"),
        (SortTarget::Version, SortOrder::Descend, "bca"),
        (SortTarget::Create, SortOrder::Descend, "cba"),
        (SortTarget::Mod, SortOrder::Ascend, "acb"),
        (SortTarget::Mod, SortOrder::None, "acb"),
        (SortTarget::Value, SortOrder::Ascend, "cab"),
        (SortTarget::Value, SortOrder::Descend, "bac"),
    ] {
        let sorted = plain().with_sort(target, order);
        assert_eq!(found(sorted.clone()).await, (expected.to_owned(), false, 3), "{target:?} {order:?}");
        let limited = found(sorted.with_limit(2).with_serializable()).await;
        assert_eq!(limited, (expected[..2].to_owned(), true, 3), "{target:?} {order:?}");
    }
    let text = |keys: &str, more| (keys.to_owned(), more, 3);
    assert_eq!(found(plain().with_limit(3)).await, text("abc", false));
    assert_eq!(found(plain().with_count_only()).await, text("", false));
    // Revisions: a 2, b 3 5 7, c 4 6.
    assert_eq!(found(plain().with_min_mod_revision(6)).await, text("bc", false));
    assert_eq!(found(plain().with_max_mod_revision(6)).await, text("ac", false));
    assert_eq!(found(plain().with_min_create_revision(3).with_max_create_revision(3)).await, text("b", false));
    assert_eq!(found(plain().with_min_create_revision(3).with_limit(1)).await, text("b", true));
    assert_eq!(found(plain().with_revision(3)).await, ("ab".to_owned(), false, 2));
    let past = plain().with_revision(5).with_sort(SortTarget::Value, SortOrder::Ascend);
    assert_eq!(found(past).await, text("cab", false));
    let keys_only = client.get("r/a", Some(plain().with_keys_only())).await.expect("a key");
    assert_eq!((keys_only.kvs()[0].value(), keys_only.kvs()[0].version()), (&b""[..], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_range_comes_in_parts_of_one_revision() {
    let mut served = start().await;
    let client = &mut served.client;
    for n in 0..8 {
        client.put(format!("l/{n}"), vec![b'v'; 700 << 10], None).await.expect("a put");
    }
    for (options, expected, more) in [
        (GetOptions::new(), "01234567", false),
        (GetOptions::new().with_limit(5), "01234", true),
        (GetOptions::new().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(3), "765", true),
        (GetOptions::new().with_count_only(), "", false),
    ] {
        let mut parts = client.kv_client().get_stream("l/", Some(options.with_prefix())).await.expect("a stream");
        let (mut keys, mut answers, mut last) = (String::new(), 0, None);
        while let Some(part) = parts.message().await.expect("a part") {
            assert!(last.is_none(), "only the last part has a header");
            keys.extend(part.kvs().iter().map(|kv| kv.key_str().expect("text")[2..].to_owned()));
            answers += 1;
            last = part.header().map(|header| (header.revision(), part.count(), part.more()));
            // The stream does not see later writes.
            client.put("l/9", "late", None).await.expect("a put");
        }
        client.delete("l/9", None).await.expect("a deletion");
        assert_eq!(keys, expected);
        let (_, count, is_more) = last.expect("a last part");
        assert_eq!((count, is_more), (8, more));
        assert!(expected.len() < 3 || answers > 1, "{answers} parts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_etcds() {
    let mut served = start().await;
    let client = &mut served.client;
    for value in ["1", "2", "3"] {
        client.put("k", value, None).await.expect("a put");
    }
    let compact = CompactionOptions::new().with_physical();
    client.compact(3, Some(compact)).await.expect("a compaction");
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    let put = PutOptions::new;
    let invalid = "InvalidArgument";
    let refused = [
        (refusal(client.put("", "v", None).await), invalid, "etcdserver: key is not provided"),
        (refusal(client.put("none", "", Some(put().with_ignore_value())).await), invalid, "etcdserver: key not found"),
        (
            refusal(client.put("k", "v", Some(put().with_ignore_value())).await),
            invalid,
            "etcdserver: value is provided",
        ),
        (
            refusal(client.put("k", "v", Some(put().with_ignore_lease().with_lease(7))).await),
            invalid,
            "etcdserver: lease is provided",
        ),
        (
            refusal(client.put("k", "v", Some(put().with_lease(7))).await),
            "NotFound",
            "etcdserver: requested lease not found",
        ),
        (refusal(client.get("k", at(2)).await), "OutOfRange", "etcdserver: mvcc: required revision has been compacted"),
        (
            refusal(client.get("k", at(100)).await),
            "OutOfRange",
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            refusal(client.compact(3, None).await),
            "OutOfRange",
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            refusal(client.compact(100, None).await),
            "OutOfRange",
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            refusal(client.txn(Txn::new().and_then(vec![TxnOp::get("k", None); 129])).await),
            invalid,
            "etcdserver: too many operations in txn request",
        ),
        (refusal(client.lease_revoke(7).await), "NotFound", "etcdserver: requested lease not found"),
        (refusal(client.lease_grant(10_000_000_000, None).await), "OutOfRange", "etcdserver: too large lease TTL"),
        (refusal(client.user_list().await), "FailedPrecondition", "etcdserver: authentication is not enabled"),
        (
            refusal(client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await),
            invalid,
            "etcdserver: alarms are raised by their causes, not by hand",
        ),
    ];
    for ((code, message), expected_code, expected_message) in refused {
        assert_eq!((code.as_str(), message.as_str()), (expected_code, expected_message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_right_after_its_created_revision() {
    let served = start().await;
    let stop = CancellationToken::new();
    let (mut writer, stopped) = (served.client.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        while !stopped.is_cancelled() {
            writer.put("busy", "x", None).await.expect("a put");
        }
    });
    let mut client = served.client.clone();
    for _ in 0..50 {
        let mut watch = client.watch("busy", None).await.expect("a watch");
        let created = next(&mut watch).await;
        assert!(created.created());
        let announced = created.header().expect("a header").revision();
        let first = next(&mut watch).await;
        let seen = first.events()[0].kv().expect("a key").mod_revision();
        assert_eq!(seen, announced + 1, "no event is left out in between");
    }
    stop.cancel();
    writing.await.expect("it wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_of_the_same_keys_have_their_own_options() {
    let mut served = start().await;
    let client = &mut served.client;
    client.put("same/a", "old", None).await.expect("a put");
    let prefix = || WatchOptions::new().with_prefix();
    let mut watches = Vec::new();
    for options in [prefix(), prefix().with_prev_key(), prefix(), prefix().with_prev_key()] {
        let mut watch = client.watch("same/", Some(options)).await.expect("a watch");
        assert!(next(&mut watch).await.created());
        watches.push(watch);
    }
    let filters = [WatchFilterType::NoPut];
    let mut deletions = client.watch("same/", Some(prefix().with_filters(filters))).await.expect("a watch");
    assert!(next(&mut deletions).await.created());
    let both = [TxnOp::delete("same/a", None), TxnOp::put("same/b", "new", None)];
    client.txn(Txn::new().and_then(both)).await.expect("a transaction");
    for (place, watch) in watches.iter_mut().enumerate() {
        let answer = next(watch).await;
        let [deleted, written] = answer.events() else { panic!("two events: {answer:?}") };
        let before = deleted.prev_kv().map(etcd_client::KeyValue::value);
        assert_eq!(before, (place % 2 == 1).then_some(&b"old"[..]), "watch {place}");
        assert_eq!((deleted.event_type(), written.event_type()), (EventType::Delete, EventType::Put));
        let kv = written.kv().expect("a key");
        assert_eq!((kv.key(), kv.value(), written.prev_kv().is_none()), (&b"same/b"[..], &b"new"[..], true));
    }
    assert_eq!(next(&mut deletions).await.events().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_watches_lasts_until_the_server_ends() {
    let Served { mut client, stop, .. } = start().await;
    let numbered = || WatchOptions::new().with_watch_id(7);
    let (mut requests, mut answers) = client.watch("a", Some(numbered())).await.expect("a watch").split();
    let mut next = async || answers.message().await.map(|answer| answer.expect("a running stream"));
    assert!(next().await.expect("an answer").created());
    client.put("a", "1", None).await.expect("a put");
    assert_eq!(next().await.expect("an answer").events().len(), 1);
    // A new watch may reuse the id of a cancelled one.
    requests.cancel(7).await.expect("a request");
    assert!(next().await.expect("an answer").canceled());
    requests.watch("b", Some(numbered())).await.expect("a request");
    assert!(next().await.expect("an answer").created());
    // A client that closes its request stream still receives events.
    drop(requests);
    for key in ["a", "b"] {
        client.put(key, "2", None).await.expect("a put");
    }
    let answer = next().await.expect("an answer");
    assert_eq!((answer.watch_id(), answer.events().len()), (7, 1));
    assert_eq!(answer.events()[0].kv().map(etcd_client::KeyValue::key), Some(&b"b"[..]));
    drop(stop);
    let end = refusal(next().await);
    assert_eq!(end, ("Unavailable".to_owned(), "etcdserver: server stopped".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_watches_ends_with_its_store() {
    let Served { mut client, store, stop: _stop, .. } = start().await;
    let mut watch = client.watch("a", None).await.expect("a watch");
    assert!(next(&mut watch).await.created());
    // A member that is out of service shuts its store down while the process continues.
    store.shutdown().await.expect("it stops");
    let end = refusal(watch.message().await);
    assert_eq!(end, ("Unavailable".to_owned(), "etcdserver: server stopped".to_owned()));
    let mut late = client.watch("a", None).await.expect("a watch");
    assert!(next(&mut late).await.created());
    assert_eq!(refusal(late.message().await).0, "Unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_transactions_do_not_enter_the_log() {
    let Served { mut client, store, stop: _stop, .. } = start().await;
    let value = vec![b'v'; 300 << 10];
    for key in 0..5 {
        client.put(format!("t/{key}"), value.clone(), None).await.expect("a put");
    }
    let applied = async || store.quorum_status().await.expect("a status").members[0].applied_index;
    assert_eq!(applied().await, 5);
    let all = || TxnOp::get("t/", Some(GetOptions::new().with_prefix()));
    let past = TxnOp::get("t/", Some(GetOptions::new().with_prefix().with_revision(3).with_count_only()));
    let is_there = Compare::version("t/0", CompareOp::Equal, 1);
    let inner = Txn::new().when([is_there.clone()]).and_then([all()]).or_else([]);
    let txn = Txn::new().when([is_there]).and_then([all(), past, TxnOp::txn(inner)]).or_else([TxnOp::get("t/9", None)]);
    let answer = client.txn(txn).await.expect("a transaction");
    assert!(answer.succeeded());
    assert_eq!(answer.header().map(etcd_client::ResponseHeader::revision), Some(6));
    let responses = answer.op_responses();
    let [TxnOpResponse::Get(all), TxnOpResponse::Get(past), TxnOpResponse::Txn(inner)] = &responses[..] else {
        panic!("{} answers", responses.len())
    };
    assert!(all.kvs().len() == 5 && all.count() == 5 && all.kvs().iter().all(|kv| kv.value() == value));
    assert_eq!((past.kvs().len(), past.count()), (0, 2));
    assert!(matches!(&inner.op_responses()[..], [TxnOpResponse::Get(found)] if found.kvs().len() == 5));
    let future = TxnOp::get("t/", Some(GetOptions::new().with_revision(99)));
    let refused = refusal(client.txn(Txn::new().and_then([future])).await);
    assert_eq!(refused.1, "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(applied().await, 5, "none of this was proposed");
    client.txn(Txn::new().and_then([TxnOp::put("t/0", "1", None)])).await.expect("a transaction");
    assert_eq!(applied().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_filter_fragment_and_report_progress() {
    let mut served = start().await;
    let client = &mut served.client;
    // The second revision with its previous values does not fit into one response.
    let value = vec![b'v'; 300 << 10];
    for _ in 0..2 {
        let puts: Vec<_> = (0..4).map(|n| TxnOp::put(format!("w/{n}"), value.clone(), None)).collect();
        client.txn(Txn::new().and_then(puts)).await.expect("a transaction");
    }
    client.delete("w/0", None).await.expect("a deletion");

    let from_start = || WatchOptions::new().with_prefix().with_start_revision(1);
    let mut whole = client.watch("w/", Some(from_start().with_fragment().with_prev_key())).await.expect("a watch");
    assert!(next(&mut whole).await.created());
    let (mut puts, mut answers) = (0, 0);
    while puts < 8 {
        let answer = next(&mut whole).await;
        answers += 1;
        puts += answer.events().iter().filter(|event| event.kv().is_some_and(|kv| kv.version() > 0)).count();
    }
    assert!(answers > 2, "in parts: {answers}");

    let filters = [WatchFilterType::NoPut];
    let mut deletions =
        client.watch("w/", Some(from_start().with_filters(filters).with_watch_id(7))).await.expect("one");
    assert_eq!((next(&mut deletions).await.created(), deletions.request_progress().await.is_ok()), (true, true));
    let first = next(&mut deletions).await;
    assert_eq!((first.watch_id(), first.events().len()), (7, 1));
    let prev = first.events()[0].prev_kv().is_none();
    assert!(prev && first.events()[0].kv().is_some_and(|kv| kv.key() == b"w/0"));
    let progress = next(&mut deletions).await;
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0));
    assert_eq!(progress.header().map(etcd_client::ResponseHeader::revision), Some(4));

    // A duplicate watch id on the same stream, and an empty range.
    deletions.watch("x", Some(WatchOptions::new().with_watch_id(7))).await.expect("a request");
    let twice = next(&mut deletions).await;
    assert!(twice.canceled() && twice.cancel_reason() == "mvcc: duplicate watch ID provided on the WatchStream");
    deletions.watch("x", Some(WatchOptions::new().with_range("a"))).await.expect("a request");
    let empty = next(&mut deletions).await;
    assert_eq!((empty.watch_id(), empty.cancel_reason()), (-1, "mvcc: watcher range is empty"));
    deletions.cancel(7).await.expect("a request");
    assert!(next(&mut deletions).await.canceled());

    client.compact(4, None).await.expect("a compaction");
    let mut late = client.watch("w/", Some(from_start())).await.expect("a watch");
    assert!(next(&mut late).await.created());
    let canceled = next(&mut late).await;
    assert_eq!((canceled.canceled(), canceled.compact_revision()), (true, 4));

    // A watch may begin in the future.
    let mut later = client.watch("f", Some(WatchOptions::new().with_start_revision(6))).await.expect("a watch");
    assert!(next(&mut later).await.created());
    for value in ["5", "6"] {
        client.put("f", value, None).await.expect("a put");
    }
    let first = next(&mut later).await;
    assert_eq!(first.events()[0].kv().map(|kv| (kv.mod_revision(), kv.value())), Some((6, &b"6"[..])));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_maintenance_answer() {
    let mut served = start().await;
    let client = &mut served.client;
    let granted = client.lease_grant(1, Some(LeaseGrantOptions::new().with_id(9))).await.expect("a lease");
    assert_eq!((granted.id(), granted.ttl()), (9, 2), "lengthened to the shortest");
    let (code, message) = refusal(client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(9))).await);
    assert_eq!((code.as_str(), message.as_str()), ("FailedPrecondition", "etcdserver: lease already exists"));
    client.put("leased", "x", Some(PutOptions::new().with_lease(9))).await.expect("a put");
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(9, Some(options)).await.expect("a time");
    assert_eq!((left.granted_ttl(), left.keys()), (2, &[b"leased".to_vec()][..]));
    assert_eq!(client.lease_time_to_live(8, None).await.expect("an answer").ttl(), -1, "as etcd says of none");
    assert_eq!(client.leases().await.expect("a list").leases().iter().map(|l| l.id()).collect::<Vec<_>>(), [9]);
    let (mut keeper, mut kept) = client.lease_keep_alive(9).await.expect("a stream");
    keeper.keep_alive().await.expect("a request");
    assert_eq!(kept.message().await.expect("an answer").map(|kept| kept.ttl()), Some(2));
    client.lease_revoke(9).await.expect("an end");
    assert_eq!(client.get("leased", None).await.expect("a range").count(), 0);

    assert!(client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("a list").alarms().is_empty());
    assert!(client.alarm(AlarmAction::Deactivate, AlarmType::None, None).await.expect("nothing").alarms().is_empty());
    client.defragment().await.expect("nothing to do");
    let hash = client.hash_kv(0).await.expect("a hash");
    assert_eq!(hash.hash_revision(), client.hash_kv(hash.hash_revision()).await.expect("a hash").hash_revision());
    assert_eq!(client.hash_kv(hash.hash_revision()).await.expect("a hash").hash(), hash.hash());
    assert_eq!(client.hash().await.expect("a hash").hash(), hash.hash());
    let status = client.status().await.expect("a status");
    assert!(status.leader() == 1 && status.errors().is_empty() && !status.is_learner());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_requests_are_answered() {
    let served = start().await;
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(&served.address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    for (path, part) in [
        ("/health", "{\"health\":\"true\",\"reason\":\"\"}"),
        ("/version", "\"etcdserver\":\"3."),
        ("/metrics", "\netcd_server_has_leader 1\n"),
        ("/metrics", "\nprocess_resident_memory_bytes "),
    ] {
        let answer = get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(part), "{path}: {answer}");
    }
}
