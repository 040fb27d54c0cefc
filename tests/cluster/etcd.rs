//! The etcd v3 API with `etcdctl` and a client library.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType, GetOptions, LockOptions, PutOptions,
    ResignOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp, WatchFilterType, WatchOptions, WatchResponse,
};
use futures::{Stream, StreamExt};
use harness::{Cluster, Deadline, Running, Runtime, Spec, eventually, eventually_async};
use serde_json::Value;

pub(crate) fn start(masters: usize) -> Cluster {
    Cluster::start(Spec { masters, workers: 0, runtime: Runtime::Hollow, flags: vec![] })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn etcdctl_reads_and_writes() {
    let cluster = start(3);
    // Writes through one master, reads through another.
    let write = |args: &[&str]| cluster.etcdctl_at("master-2", args, "").ok();
    let read = |args: &[&str]| cluster.etcdctl_at("master-3", args, "").ok();

    assert_eq!(write(&["put", "a/1", "one"]), "OK\n");
    assert_eq!(write(&["put", "a/2", "two"]), "OK\n");
    assert_eq!(write(&["put", "b", "three"]), "OK\n");
    assert_eq!(write(&["put", "--prev-kv", "a/1", "uno"]), "OK\na/1\none\n");
    assert_eq!(read(&["get", "a/1"]), "a/1\nuno\n");
    assert_eq!(read(&["get", "a/", "--prefix", "--keys-only"]), "a/1\n\na/2\n\n");
    assert_eq!(
        read(&["get", "a/", "--prefix", "--print-value-only", "--order=DESCEND", "--sort-by=KEY"]),
        "two\nuno\n"
    );
    assert_eq!(read(&["get", "a/", "--prefix", "--print-value-only", "--sort-by=MODIFY"]), "two\nuno\n");
    assert_eq!(read(&["get", "a/1", "c", "--limit=2", "--print-value-only"]), "uno\ntwo\n");
    assert_eq!(read(&["get", "a/2", "--from-key", "--consistency=s", "--limit=1"]), "a/2\ntwo\n");
    let found = json(&read(&["get", "a/1", "-w", "json"]));
    assert_eq!((&found["count"], &found["kvs"][0]["version"]), (&1.into(), &2.into()));
    let created = found["kvs"][0]["create_revision"].as_u64().expect("a revision");
    assert_eq!(read(&["get", "a/1", &format!("--rev={created}")]), "a/1\none\n");

    let txn = "mod(\"b\") > \"0\"\nvalue(\"a/1\") = \"uno\"\n\nput c new\nget a/2\n\nput c old\n\n";
    let done = cluster.etcdctl_at("master-1", &["txn"], txn).ok();
    assert_eq!(done, "SUCCESS\n\nOK\n\na/2\ntwo\n");
    let done = cluster.etcdctl_at("master-1", &["txn"], "ver(\"c\") = \"7\"\n\nput c x\n\ndel c\n\n").ok();
    assert_eq!(done, "FAILURE\n\n1\n");

    let revision =
        json(&write(&["put", "b", "four", "-w", "json"]))["header"]["revision"].as_u64().expect("a revision");
    assert_eq!(write(&["compact", &revision.to_string(), "--physical"]), format!("compacted revision {revision}\n"));
    let old = cluster.etcdctl_at("master-3", &["get", "b", &format!("--rev={created}")], "");
    assert!(old.stderr.contains("etcdserver: mvcc: required revision has been compacted"), "{old:?}");
    let future = cluster.etcdctl_at("master-3", &["get", "b", "--rev=1000000"], "");
    assert!(future.stderr.contains("etcdserver: mvcc: required revision is a future revision"), "{future:?}");

    assert_eq!(write(&["del", "a/", "--prefix", "--prev-kv"]), "2\na/1\nuno\na/2\ntwo\n");
    assert_eq!(write(&["del", "nothing"]), "0\n");
}

#[test]
fn kubernetes_objects_are_read_only_over_etcd() {
    let cluster = start(1);
    cluster
        .kubectl(
            &["create", "-f", "-"],
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"seen\"}}",
        )
        .ok();
    let keys = cluster.etcdctl_at("master-1", &["get", "/registry/", "--prefix", "--keys-only"], "").ok();
    let key = keys.lines().find(|line| line.ends_with("/configmaps/default/seen")).expect("the ConfigMap's key");
    let allocation = ["del", "/quorate/allocations/addresses/10.96.0.1"];
    let put = ["put", "/registry/x", "y"];
    for args in [&["put", key, "x"][..], &["del", key], &["del", "", "--from-key"], &put, &allocation] {
        let refused = cluster.etcdctl_at("master-1", args, "");
        assert!(!refused.success && refused.stderr.contains("permission denied"), "{args:?}: {refused:?}");
    }
    cluster.kubectl(&["get", "configmap", "seen"], "").ok();

    // A client without an administrator's certificate is refused.
    let url = cluster.member("master-1").etcd.expect("an etcd API");
    let pki = cluster.dir().join("pki");
    let mut stranger = std::process::Command::new("etcdctl");
    stranger.env("ETCDCTL_API", "3").args(["--endpoints", &url, "--command-timeout=2s", "--dial-timeout=2s"]);
    stranger.arg("--cacert").arg(pki.join("ca.crt")).args(["get", "a"]);
    assert!(!harness::run(&mut stranger, "").success);
}

#[test]
fn etcdctl_watches() {
    let cluster = start(3);
    let watch = |args: &[&str]| Running::start(cluster.etcdctl_command(&["master-2"]).arg("watch").args(args));
    let put = |key: &str, value: &str| cluster.etcdctl_at("master-1", &["put", key, value], "").ok();
    put("w/1", "first");
    let found = json(&cluster.etcdctl_at("master-1", &["get", "w/1", "-w", "json"], "").ok());
    let since = found["kvs"][0]["mod_revision"].as_u64().expect("a revision");

    let prefix = watch(&["--prefix", "w/", &format!("--rev={since}")]);
    let with_prev = watch(&["--prev-kv", "w/1", &format!("--rev={since}")]);
    let mut interactive = watch(&["-i"]);
    interactive.say(&format!("watch w/1 --rev={since}\nwatch w/2\nprogress\n"));
    prefix.wait_for(&["PUT", "w/1", "first"]);
    interactive.wait_for(&["PUT", "w/1", "first"]);
    put("w/1", "second");
    put("w/2", "other");
    cluster.etcdctl_at("master-3", &["del", "w/1"], "").ok();
    prefix.wait_for(&["PUT", "w/1", "first", "PUT", "w/1", "second", "PUT", "w/2", "other", "DELETE", "w/1"]);
    with_prev
        .wait_for(&["PUT", "w/1", "first", "PUT", "w/1", "first", "w/1", "second", "DELETE", "w/1", "second", "w/1"]);

    // A compacted revision cannot be watched.
    let newest = json(&cluster.etcdctl_at("master-1", &["put", "w/3", "x", "-w", "json"], "").ok());
    let newest = newest["header"]["revision"].as_u64().expect("a revision");
    cluster.etcdctl_at("master-1", &["compact", &newest.to_string()], "").ok();
    let late = cluster.etcdctl_at("master-1", &["watch", "w/1", &format!("--rev={since}")], "");
    assert!(late.stderr.contains("required revision has been compacted"), "{late:?}");
}

#[test]
fn etcdctl_leases_locks_and_elects() {
    let cluster = start(3);
    let ctl = |args: &[&str]| cluster.etcdctl_at("master-1", args, "").ok();
    let granted = ctl(&["lease", "grant", "600"]);
    let lease = granted.split(' ').nth(1).expect("an id").to_owned();
    assert_eq!(granted, format!("lease {lease} granted with TTL(600s)\n"));
    ctl(&["put", "leased", "x", "--lease", &lease]);
    // The leader knows the remaining time, and every master the keys.
    for master in ["master-1", "master-2", "master-3"] {
        let shown = cluster.etcdctl_at(master, &["lease", "timetolive", &lease, "--keys"], "").ok();
        assert!(shown.starts_with(&format!("lease {lease} granted with TTL(600s), remaining(")), "{shown}");
        assert!(shown.contains("attached keys([leased])"), "{shown}");
    }
    assert!(ctl(&["lease", "list"]).contains(&lease));
    assert_eq!(ctl(&["lease", "keep-alive", "--once", &lease]), format!("lease {lease} keepalived with TTL(600)\n"));
    assert_eq!(ctl(&["lease", "revoke", &lease]), format!("lease {lease} revoked\n"));
    assert_eq!(ctl(&["get", "leased"]), "");
    let gone = ctl(&["lease", "timetolive", &lease]);
    assert_eq!(gone, format!("lease {lease} already expired\n"));
    let short = ctl(&["lease", "grant", "2"]);
    let short = short.split(' ').nth(1).expect("an id").to_owned();
    ctl(&["put", "short", "x", "--lease", &short]);
    eventually("the lease to end", || {
        let left = cluster.etcdctl_at("master-2", &["get", "short"], "").ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });

    let first = Running::start(cluster.etcdctl_command(&["master-1"]).args(["lock", "door"]));
    let holder = first.wait_for_part("door/");
    let second = Running::start(cluster.etcdctl_command(&["master-3"]).args(["lock", "door"]));
    eventually("both to queue", || {
        let keys = cluster.etcdctl_at("master-2", &["get", "door/", "--prefix", "--keys-only"], "").ok();
        if keys.lines().filter(|line| !line.is_empty()).count() == 2 { Ok(()) } else { Err(keys) }
    });
    assert_eq!(second.lines(), Vec::<String>::new(), "{holder} holds it");
    cluster.etcdctl_at("master-2", &["del", &holder], "").ok();
    assert_ne!(second.wait_for_part("door/"), holder);
    drop((first, second));

    let leader = Running::start(cluster.etcdctl_command(&["master-1"]).args(["elect", "office", "alice"]));
    leader.wait_for_part("alice");
    let observer = Running::start(cluster.etcdctl_command(&["master-2"]).args(["elect", "-l", "office"]));
    observer.wait_for_part("alice");
}

#[test]
fn etcdctl_sees_the_quorum() {
    let cluster = start(3);
    let all = ["master-1", "master-2", "master-3"];
    let on_all = |args: &[&str]| harness::run(cluster.etcdctl_command(&all).args(args), "").ok();
    let members = on_all(&["member", "list"]);
    assert_eq!(members.lines().filter(|line| line.contains(", started, master-")).count(), 3, "{members}");
    let health = json(&on_all(&["endpoint", "health", "-w", "json"]));
    assert!(health.as_array().is_some_and(|e| e.len() == 3 && e.iter().all(|e| e["health"] == true)), "{health}");
    let leaders = |status: &str| -> Vec<(Value, Value)> {
        let status = json(status);
        let one = |s: &Value| (s["Status"]["leader"].clone(), s["Status"]["header"]["member_id"].clone());
        status.as_array().expect("a list").iter().map(one).collect()
    };
    let before = leaders(&on_all(&["endpoint", "status", "-w", "json"]));
    assert!(before.iter().all(|(leader, _)| *leader == before[0].0), "{before:?}");
    let place = before.iter().position(|(leader, member)| leader == member).expect("the leader is one of them");
    let heir = before[(place + 1) % 3].1.as_u64().expect("an id");
    let moved = cluster.etcdctl_at(all[place], &["move-leader", &format!("{heir:x}")], "").ok();
    assert!(moved.starts_with("Leadership transferred from"), "{moved}");
    eventually("the new leader to be known", || {
        let now = leaders(&on_all(&["endpoint", "status", "-w", "json"]));
        if now.iter().all(|(leader, _)| leader.as_u64() == Some(heir)) { Ok(()) } else { Err(now) }
    });

    on_all(&["put", "k", "v"]);
    let revision = json(&on_all(&["get", "k", "-w", "json"]))["kvs"][0]["mod_revision"].as_u64().expect("a revision");
    let hashes = json(&on_all(&["endpoint", "hashkv", &format!("--rev={revision}"), "-w", "json"]));
    let hashes: Vec<u64> =
        hashes.as_array().expect("a list").iter().map(|e| e["HashKV"]["hash"].as_u64().expect("a hash")).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert!(on_all(&["defrag"]).contains("Finished defragmenting"));
    assert_eq!(on_all(&["alarm", "list"]), "");
    assert_eq!(on_all(&["alarm", "disarm"]), "");
    // The command reads the member's memory over HTTPS, and has no flag for the cluster's authority there.
    let scale = ["check", "datascale", "--load", "s", "--insecure-skip-tls-verify"];
    let scale = cluster.etcdctl_at("master-2", &scale, "").ok();
    assert!(scale.contains("PASS: Approximate system memory used"), "{scale}");
    let auth = cluster.etcdctl_at("master-1", &["user", "list"], "");
    assert!(auth.stderr.contains("etcdserver: authentication is not enabled"), "{auth:?}");

    // A mirror copies changes into another prefix of the same store.
    on_all(&["put", "source/1", "x"]);
    let url = cluster.member("master-2").etcd.expect("an etcd API");
    let pki = cluster.dir().join("pki");
    let mut mirror = cluster.etcdctl_command(&["master-1"]);
    mirror.args(["make-mirror", "--prefix", "source/", "--dest-prefix", "mirror/"]);
    for (flag, file) in [("--dest-cacert", "ca.crt"), ("--dest-cert", "admin.crt"), ("--dest-key", "admin.key")] {
        mirror.arg(flag).arg(pki.join(file));
    }
    let _mirror = Running::start(mirror.arg(url.trim_start_matches("https://")));
    let mirrored = |key: &str| {
        eventually("the mirror", || {
            let found = cluster.etcdctl_at("master-3", &["get", key, "--print-value-only"], "").ok();
            if found == "x\n" { Ok(()) } else { Err(found) }
        });
    };
    mirrored("mirror/1");
    on_all(&["put", "source/2", "x"]);
    mirrored("mirror/2");
}

pub(crate) async fn client(cluster: &Cluster, masters: &[&str]) -> Client {
    let pki = cluster.dir().join("pki");
    let read = |file: &str| fs::read(pki.join(file)).expect("a file of the pki");
    let ca = etcd_client::Certificate::from_pem(read("ca.crt"));
    let identity = etcd_client::Identity::from_pem(read("admin.crt"), read("admin.key"));
    let tls = TlsOptions::new().ca_certificate(ca).identity(identity).domain_name("localhost");
    let urls: Vec<_> = masters.iter().map(|name| cluster.member(name).etcd.expect("an etcd API")).collect();
    let options = ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(60));
    Client::connect(urls, Some(options)).await.expect("a client")
}

/// Returns the next response of a watch; panics when none comes in time.
pub(crate) async fn next(watch: &mut (impl Stream<Item = Result<WatchResponse, Error>> + Unpin)) -> WatchResponse {
    let answer = tokio::time::timeout(Deadline::default().0, watch.next()).await.expect("an answer in time");
    answer.expect("a stream that goes on").expect("an answer")
}

/// Returns the code and message of a refusal; panics when the request succeeded or failed otherwise.
pub(crate) fn refusal<T>(answer: Result<T, Error>) -> (String, String) {
    match answer {
        Err(Error::GRpcStatus(status)) => (format!("{:?}", status.code()), status.message().to_owned()),
        Err(error) => panic!("the server has not answered: {error}"),
        Ok(_) => panic!("the request was not refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_checks_performance() {
    let cluster = start(3);
    let prefix = "perf/";
    let mut client = client(&cluster, &["master-1"]).await;
    let since = client.put("before", "x", None).await.expect("a put").header().expect("a header").revision();

    // The command writes for a minute at any load. Whether the rate passes depends on the machine.
    let args = ["check", "perf", "--load", "s", "--prefix", prefix];
    let checked = cluster.etcdctl_at("master-2", &args, "");
    let rate = checked.stdout.split_once("Throughput ").and_then(|(_, rest)| rest.split_once(" writes/s"));
    let rate = rate.and_then(|(rest, _)| rest.rsplit(' ').next()?.parse::<usize>().ok());
    let rate = rate.unwrap_or_else(|| panic!("no throughput: {checked:?}"));
    assert!(!checked.stdout.contains("too many errors"), "{checked:?}");

    // The command has deleted its keys, and the history has both the writes and the deletions.
    let left = client.get(prefix, Some(GetOptions::new().with_prefix().with_count_only())).await.expect("a count");
    assert_eq!(left.count(), 0);
    let options = WatchOptions::new().with_prefix().with_fragment().with_start_revision(since);
    let mut watch = client.watch(prefix, Some(options)).await.expect("a watch");
    assert!(next(&mut watch).await.created());
    watch.request_progress().await.expect("a request");
    let (mut written, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let answer = next(&mut watch).await;
        assert!(!answer.canceled(), "{}", answer.cancel_reason());
        if answer.events().is_empty() {
            break;
        }
        for event in answer.events() {
            let kv = event.kv().expect("a key");
            if event.event_type() == EventType::Put {
                assert_eq!((kv.key().len(), kv.value().len()), (prefix.len() + 256, 1024));
                assert!(written.insert(kv.key().to_vec()), "each key is written once");
            } else {
                deleted.insert(kv.key().to_vec());
            }
        }
    }
    assert_eq!(written, deleted);
    // The command rounds the rate up, and measures slightly more than the minute in which it writes.
    assert!(written.len() >= (rate - 1) * 50, "{} keys, at {rate} in a second", written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_library_works() {
    let cluster = start(3);
    let mut client = client(&cluster, &["master-1", "master-2", "master-3"]).await;

    client.put("k", "v1", None).await.expect("a put");
    let put = client.put("k", "v2", Some(PutOptions::new().with_prev_key())).await.expect("a put");
    assert_eq!(put.prev_key().map(|kv| kv.value().to_vec()), Some(b"v1".to_vec()));
    for i in 0..10 {
        client.put(format!("r/{i}"), format!("{}", 9 - i), None).await.expect("a put");
    }
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Ascend).with_limit(3);
    let found = client.get("r/", Some(options)).await.expect("a get");
    let keys: Vec<_> = found.kvs().iter().map(|kv| kv.key_str().expect("text")).collect();
    assert_eq!((keys, found.more(), found.count()), (vec!["r/9", "r/8", "r/7"], true, 10));
    let counted = client.get("r/", Some(GetOptions::new().with_prefix().with_count_only())).await.expect("a count");
    assert_eq!((counted.count(), counted.kvs().len()), (10, 0));

    let nested = Txn::new().and_then([TxnOp::put("n", "1", None)]);
    let txn = Txn::new()
        .when([Compare::value("k", CompareOp::Equal, "v2"), Compare::version("none", CompareOp::Equal, 0)])
        .and_then([TxnOp::txn(nested), TxnOp::get("k", None), TxnOp::delete("r/0", None)])
        .or_else([TxnOp::put("k", "lost", None)]);
    let done = client.txn(txn).await.expect("a transaction");
    assert!(done.succeeded());
    assert_eq!(done.op_responses().len(), 3);
    let twice = Txn::new().and_then([TxnOp::put("n", "1", None), TxnOp::put("n", "2", None)]);
    let refused = client.txn(twice).await.expect_err("one key twice").to_string();
    assert!(refused.contains("duplicate key given in txn request"), "{refused}");

    let mut watch = client.watch("s/", Some(WatchOptions::new().with_prefix().with_prev_key())).await.expect("a watch");
    assert!(watch.message().await.expect("an answer").expect("a stream").created());
    for value in ["1", "2", "3"] {
        client.put("s/k", value, None).await.expect("a put");
    }
    client.delete("s/", Some(DeleteOptions::new().with_prefix())).await.expect("a delete");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let answer = watch.message().await.expect("an answer").expect("a stream");
        seen.extend(answer.events().iter().map(|event| {
            let value = event.kv().map(|kv| kv.value_str().expect("text").to_owned());
            let prev = event.prev_kv().map(|kv| kv.value_str().expect("text").to_owned());
            (event.event_type(), value.unwrap_or_default(), prev.unwrap_or_default())
        }));
    }
    let put = |value: &str, prev: &str| (EventType::Put, value.to_owned(), prev.to_owned());
    let expected = [put("1", ""), put("2", "1"), put("3", "2"), (EventType::Delete, String::new(), "3".to_owned())];
    assert_eq!(seen, expected);
    watch.request_progress().await.expect("a request");
    let progress = watch.message().await.expect("an answer").expect("a stream");
    assert!(progress.events().is_empty() && progress.header().is_some_and(|h| h.revision() > 0));

    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let (mut keeper, mut alive) = client.lease_keep_alive(lease).await.expect("a stream");
    keeper.keep_alive().await.expect("a request");
    assert_eq!(alive.message().await.expect("an answer").map(|kept| kept.ttl()), Some(60));
    let lock = client.lock("mutex", Some(LockOptions::new().with_lease(lease))).await.expect("a lock");
    assert!(lock.key().starts_with(b"mutex/"));
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("mutex", None).await.map(|lock| lock.key().to_vec()) });
    client.unlock(lock.key()).await.expect("an unlock");
    assert!(waiting.await.expect("a task").expect("the lock").starts_with(b"mutex/"));

    let elected = client.campaign("job", "first", lease).await.expect("a campaign");
    let key = elected.leader().expect("a leader's key").clone();
    assert_eq!(
        client.leader("job").await.expect("a leader").kv().map(|kv| kv.value().to_vec()),
        Some(b"first".to_vec())
    );
    client
        .proclaim("second", Some(etcd_client::ProclaimOptions::new().with_leader(key.clone())))
        .await
        .expect("a word");
    let mut observed = client.observe("job").await.expect("a stream");
    let seen = observed.message().await.expect("an answer").expect("a leader");
    assert_eq!(seen.kv().map(|kv| kv.value().to_vec()), Some(b"second".to_vec()));
    client.resign(Some(ResignOptions::new().with_leader(key))).await.expect("a resignation");
    client.lease_revoke(lease).await.expect("an end");

    let status = client.status().await.expect("a status");
    assert!(status.leader() != 0 && status.raft_applied_index() > 0);
    assert_eq!(client.member_list().await.expect("members").members().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_library_takes_a_snapshot_and_moves_the_leader() {
    let cluster = start(3);
    let mut clients = Vec::new();
    for master in ["master-1", "master-2", "master-3"] {
        clients.push(client(&cluster, &[master]).await);
    }
    let clients = &clients[..];

    let mut taken = clients[1].clone().snapshot().await.expect("a stream");
    let (mut snapshot, mut sizes) = (Vec::new(), BTreeSet::new());
    while let Some(part) = taken.message().await.expect("a part") {
        snapshot.extend_from_slice(part.blob());
        sizes.insert(snapshot.len() as u64 + part.remaining_bytes());
    }
    assert!(snapshot.starts_with(b"quorate-backup1\n"));
    assert_eq!(sizes, BTreeSet::from([snapshot.len() as u64]), "each part has the number of remaining bytes");
    // Like an etcd snapshot, it consists of blocks of 512 bytes and their SHA-256.
    assert_eq!(snapshot.len() % 512, 32);

    let (leader, ids) = eventually_async("a leader that all members know", || known_leader(clients)).await;
    let heir = (leader + 1) % clients.len();
    let no_leader = refusal(clients[heir].clone().move_leader(ids[heir]).await);
    assert_eq!(no_leader, ("FailedPrecondition".to_owned(), "etcdserver: not leader".to_owned()));
    let no_heir = refusal(clients[leader].clone().move_leader(u64::MAX).await);
    assert_eq!(no_heir, ("FailedPrecondition".to_owned(), "etcdserver: bad leader transferee".to_owned()));
    let moved = clients[leader].clone().move_leader(ids[heir]).await.expect("a transfer");
    assert_eq!(moved.header().map(|header| header.member_id()), Some(ids[leader]));
    eventually_async("the new leader to be known", || async move {
        match known_leader(clients).await {
            Ok((place, _)) if place == heir => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// Returns the leader's index among these clients of one member each, and the ids of all members.
async fn known_leader(clients: &[Client]) -> Result<(usize, Vec<u64>), String> {
    let (mut ids, mut leaders) = (Vec::new(), BTreeSet::new());
    for client in clients {
        let status = client.clone().status().await.map_err(|error| error.to_string())?;
        ids.push(status.header().expect("a header").member_id());
        leaders.insert(status.leader());
    }
    let place = ids.iter().position(|id| leaders.len() == 1 && leaders.contains(id));
    place.map(|place| (place, ids)).ok_or_else(|| format!("leaders {leaders:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_library_filters_watches_and_puts_keep_ignored_fields() {
    let cluster = start(3);
    let mut reader = client(&cluster, &["master-2"]).await;
    let mut client = client(&cluster, &["master-1"]).await;

    let options = WatchOptions::new().with_progress_notify().with_filters([WatchFilterType::NoDelete]);
    let mut watch = reader.watch("f", Some(options)).await.expect("a watch");
    let created = next(&mut watch).await;
    assert!(created.created());
    client.put("f", "1", None).await.expect("a put");
    client.delete("f", None).await.expect("a delete");
    let last = client.put("f", "2", None).await.expect("a put").header().expect("a header").revision();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        // Responses without events report progress.
        let answer = next(&mut watch).await;
        seen.extend(answer.events().iter().map(|event| {
            let kv = event.kv().expect("a key");
            (event.event_type(), kv.value().to_vec(), kv.version())
        }));
    }
    assert_eq!(seen, [(EventType::Put, b"1".to_vec(), 1), (EventType::Put, b"2".to_vec(), 1)]);
    // The server sends progress without a request.
    let progress = next(&mut watch).await;
    assert!(progress.events().is_empty() && !progress.created() && !progress.canceled(), "{progress:?}");
    assert_eq!(progress.watch_id(), created.watch_id());
    assert!(progress.header().is_some_and(|header| header.revision() >= last), "{progress:?}");

    let lease = client.lease_grant(600, None).await.expect("a lease").id();
    client.put("kept", "first", None).await.expect("a put");
    let only_lease = PutOptions::new().with_ignore_value().with_lease(lease);
    client.put("kept", "", Some(only_lease.clone())).await.expect("a put");
    let kept = client.get("kept", None).await.expect("a get");
    let kept = kept.kvs().first().expect("a key");
    assert_eq!((kept.value(), kept.lease(), kept.version()), (&b"first"[..], lease, 2));
    let only_value = PutOptions::new().with_ignore_lease();
    client.put("kept", "second", Some(only_value.clone())).await.expect("a put");
    let kept = client.get("kept", None).await.expect("a get");
    let kept = kept.kvs().first().expect("a key");
    assert_eq!((kept.value(), kept.lease(), kept.version()), (&b"second"[..], lease, 3));
    for (key, value, options, why) in [
        ("kept", "third", only_lease.clone(), "etcdserver: value is provided"),
        ("kept", "third", only_value.clone().with_lease(lease), "etcdserver: lease is provided"),
        ("none", "", only_lease, "etcdserver: key not found"),
        ("none", "third", only_value, "etcdserver: key not found"),
    ] {
        let refused = refusal(client.put(key, value, Some(options)).await);
        assert_eq!(refused, ("InvalidArgument".to_owned(), why.to_owned()));
    }
    let kept = client.get("kept", None).await.expect("a get");
    assert_eq!(kept.kvs().first().map(|kv| kv.version()), Some(3));
    assert_eq!(client.get("none", None).await.expect("a get").count(), 0);
}
