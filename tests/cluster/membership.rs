//! Changes of the members while the quorum runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use etcd_client::{Client, MemberAddOptions};
use harness::{Cluster, Member, Output, Running, Runtime, Spec, binary, eventually, eventually_async, run};
use serde_json::Value;

use crate::etcd::{self, refusal};
use crate::writers::{Writers, check_all_there};

fn start(masters: usize) -> Cluster {
    Cluster::start(Spec { masters, workers: 0, runtime: Runtime::Hollow, flags: vec![] })
}

/// Waits until `master` reports exactly these voters, all reachable, and these learners.
fn settled(cluster: &Cluster, master: &str, voters: &[&str], learners: &[&str]) {
    eventually("the quorum to settle", || {
        let quorum = cluster.quorum_seen_by(master)?;
        let members = quorum["members"].as_array().cloned().unwrap_or_default();
        let names = |is_voter: bool| -> Vec<String> {
            let some = members.iter().filter(|m| m["voter"] == is_voter && m["role"] != "unreachable");
            some.map(|m| m["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let is_settled =
            names(true) == voters && names(false) == learners && members.len() == voters.len() + learners.len();
        if is_settled && quorum["leader"].is_string() { Ok(()) } else { Err(quorum.to_string()) }
    });
}

fn put(cluster: &Cluster, master: &str, key: &str) {
    cluster.etcdctl_at(master, &["put", key, key], "").ok();
}

fn assert_has(cluster: &Cluster, master: &str, keys: &[&str]) {
    for key in keys {
        assert_eq!(cluster.etcdctl_at(master, &["get", key], "").ok(), format!("{key}\n{key}\n"), "on {master}");
    }
}

/// Command `quorate server` with a member's configuration file and additional flags.
fn server(config: &PathBuf, flags: &[&str]) -> Command {
    let mut command = Command::new(binary("quorate"));
    command.arg("server").arg("--config").arg(config).args(flags);
    command
}

/// Starts a member that must refuse to run, and returns its output.
fn refused(member: &Member, flags: &[&str]) -> Output {
    let output = run(&mut server(&member.data.join("config.toml"), flags), "");
    assert!(!output.success, "{output:?}");
    output
}

/// Flags that let a member listen on any free ports instead of the configured ones.
const ELSEWHERE: [&str; 8] = [
    "--api-listen",
    "127.0.0.1:0",
    "--etcd-listen",
    "127.0.0.1:0",
    "--peer-listen",
    "127.0.0.1:0",
    "--metrics-listen",
    "127.0.0.1:0",
];

#[test]
fn a_quorum_grows_and_shrinks_by_two() {
    let mut cluster = start(1);
    put(&cluster, "master-1", "one");
    cluster.grow(3);
    settled(&cluster, "master-1", &["master-1", "master-2", "master-3"], &[]);
    put(&cluster, "master-3", "three");
    cluster.grow(5);
    let five = ["master-1", "master-2", "master-3", "master-4", "master-5"];
    settled(&cluster, "master-5", &five, &[]);
    put(&cluster, "master-5", "five");
    for master in five {
        assert_has(&cluster, master, &["one", "three", "five"]);
    }

    // A single removal waits, because four voters tolerate no more failures than three, and the command says so.
    let printed = cluster.qctl(&["quorum", "remove", "master-5"], "").ok();
    assert!(printed.contains("master-5 keeps its vote for now"), "{printed}");
    settled(&cluster, "master-1", &five, &[]);
    let shown = cluster.qctl(&["quorum"], "").ok();
    assert!(shown.contains("(leaving)"), "{shown}");
    // A leader can be removed too.
    cluster.qctl(&["quorum", "transfer", "master-5"], "").ok();
    cluster.qctl(&["quorum", "remove", "master-4"], "").ok();
    settled(&cluster, "master-1", &["master-1", "master-2", "master-3"], &[]);
    for removed in ["master-4", "master-5"] {
        cluster.wait_gone(removed);
        let output = refused(&cluster.member(removed), &[]);
        assert!(output.stderr.contains("is no member any more"), "{output:?}");
    }
    put(&cluster, "master-2", "back");
    assert_has(&cluster, "master-1", &["one", "three", "five", "back"]);
    // Members are started and restarted by the current list of members, not by the original one.
    cluster.kill("master-2");
    cluster.grow(3);
    assert_eq!(cluster.masters().len(), 3);
    settled(&cluster, "master-2", &["master-1", "master-2", "master-3"], &[]);
}

#[test]
fn seven_survive_the_loss_of_three_and_become_three() {
    let mut cluster = start(5);
    put(&cluster, "master-1", "five");
    cluster.grow(7);
    let seven = ["master-1", "master-2", "master-3", "master-4", "master-5", "master-6", "master-7"];
    settled(&cluster, "master-7", &seven, &[]);
    put(&cluster, "master-7", "seven");
    for master in seven {
        assert_has(&cluster, master, &["five", "seven"]);
    }
    let printed = cluster.qctl(&["quorum", "add", "master-8", "--peer", "127.0.0.1:1"], "").ok();
    assert!(printed.contains("at most 7 members vote"), "{printed}");
    cluster.qctl(&["quorum", "remove", "master-8"], "").ok();

    // One of the removed members is the leader.
    cluster.qctl(&["quorum", "transfer", "master-7"], "").ok();
    cluster.kill_at_once(&["master-2", "master-6", "master-7"].map(|name| cluster.member(name)));
    put_until_accepted(&cluster, "master-1", "four");
    cluster.revive();
    settled(&cluster, "master-6", &seven, &[]);
    let mut written = vec!["five", "seven", "four"];
    assert_has(&cluster, "master-7", &written);

    for (first, second, stay, key) in
        [("master-7", "master-6", &seven[..5], "five again"), ("master-5", "master-4", &seven[..3], "three")]
    {
        let printed = cluster.qctl(&["quorum", "remove", first], "").ok();
        let voters = stay.len() + 1;
        assert!(printed.contains(&format!("{first} keeps its vote for now: {voters} voters")), "{printed}");
        put(&cluster, first, key);
        written.push(key);
        cluster.qctl(&["quorum", "remove", second], "").ok();
        settled(&cluster, "master-1", stay, &[]);
        for removed in [first, second] {
            cluster.wait_gone(removed);
        }
        for master in stay {
            assert_has(&cluster, master, &written);
        }
    }
    put(&cluster, "master-3", "after");
    assert_has(&cluster, "master-1", &["after"]);
}

#[test]
fn a_dead_member_is_replaced_and_never_returns() {
    let cluster = start(3);
    put(&cluster, "master-1", "before");
    cluster.kill("master-3");
    let dead = cluster.member("master-3");
    let peer = dead.peer.clone().expect("a master has one").replace("https://", "");
    let add = ["quorum", "replace", "master-3", "master-4", "--peer", &peer, "--token-only"];
    let token = cluster.qctl(&add, "").ok();
    let shown = cluster.qctl(&["quorum"], "").ok();
    assert!(shown.contains("was invited"), "{shown}");

    // The new member has the same machine and addresses, but another name and directory.
    let data = cluster.dir().join("master-4");
    let flags = ["--name", "master-4", "--data-dir", data.to_str().expect("UTF-8"), "--join", token.trim()];
    let config = dead.data.join("config.toml");
    let mut joined = Running::start(&mut server(&config, &flags));
    settled(&cluster, "master-1", &["master-1", "master-2", "master-4"], &[]);
    put(&cluster, "master-3", "through the new one");
    assert_has(&cluster, "master-1", &["before", "through the new one"]);

    // After the join it needs neither its token nor a list of members.
    drop(joined);
    let own = cluster.dir().join("master-4.toml");
    let written = fs::read_to_string(&config).expect("a configuration");
    let (before, list) = written.split_once("members = [").expect("a list");
    let (_, after) = list.split_once("]\n").expect("its end");
    fs::write(&own, format!("{before}{after}")).expect("written");
    joined = Running::start(&mut server(&own, &flags[..4]));
    settled(&cluster, "master-1", &["master-1", "master-2", "master-4"], &[]);
    // The token is valid for one data directory.
    let other = cluster.dir().join("other");
    let again = ["--name", "other", "--data-dir", other.to_str().expect("UTF-8"), "--join", token.trim()];
    let output = refused(&dead, &[&ELSEWHERE[..], &again].concat());
    assert!(output.stderr.contains("the token is not known") || output.stderr.contains("used"), "{output:?}");

    // The dead member learns from the quorum that it was removed, and remembers that.
    let output = refused(&dead, &ELSEWHERE);
    assert!(output.stderr.contains("it was removed from the quorum"), "{output:?}");
    let output = refused(&dead, &ELSEWHERE);
    assert!(output.stderr.contains("is no member any more"), "{output:?}");
    drop(joined);
}

#[test]
fn a_wiped_member_is_refused_under_its_old_id() {
    let cluster = start(3);
    put(&cluster, "master-1", "kept");
    for wiped in ["master-2", "master-1"] {
        cluster.kill(wiped);
        let member = cluster.member(wiped);
        let (store, aside) = (member.data.join("store"), member.data.join("aside"));
        fs::rename(&store, &aside).expect("moved away");
        let output = refused(&member, &[]);
        assert!(output.stderr.contains("another directory"), "{output:?}");
        let output = refused(&member, &[]);
        assert!(output.stderr.contains("is no member any more"), "{output:?}");
        // The data was not really lost, so the original directory must still be accepted.
        fs::remove_dir_all(&store).expect("the empty one");
        fs::rename(&aside, &store).expect("moved back");
        cluster.revive();
        settled(&cluster, "master-3", &["master-1", "master-2", "master-3"], &[]);
    }
    assert_has(&cluster, "master-2", &["kept"]);
}

#[test]
fn a_single_survivor_becomes_a_quorum() {
    let cluster = start(3);
    put(&cluster, "master-1", "survives");
    assert_has(&cluster, "master-2", &["survives"]);
    for master in cluster.masters() {
        cluster.kill(&master.name);
    }
    let survivor = cluster.member("master-2");
    let config = survivor.data.join("config.toml");
    let recover = |flags: &[&str], stdin: &str| {
        run(Command::new(binary("quorate")).arg("recover").arg("--config").arg(&config).args(flags), stdin)
    };
    let asked = recover(&[], "no\n");
    assert!(!asked.success && asked.stderr.contains("nothing was changed"), "{asked:?}");
    assert!(asked.stdout.contains("Given up: master-1, master-3"), "{asked:?}");
    let done = recover(&["--yes"], "").ok();
    assert!(done.contains("a quorum of its own"), "{done}");

    let running = Running::start(&mut server(&config, &[]));
    settled(&cluster, "master-2", &["master-2"], &[]);
    assert_has(&cluster, "master-2", &["survives"]);
    put(&cluster, "master-2", "goes on");
    // The other members form a majority of the old quorum. The two quorums must ignore each other.
    let others: Vec<_> = ["master-1", "master-3"]
        .map(|name| Running::start(&mut server(&cluster.member(name).data.join("config.toml"), &[])))
        .into();
    put_until_accepted(&cluster, "master-1", "elsewhere");
    settled(&cluster, "master-2", &["master-2"], &[]);
    assert_eq!(cluster.etcdctl_at("master-2", &["get", "elsewhere"], "").ok(), "");
    assert_eq!(cluster.etcdctl_at("master-1", &["get", "goes on"], "").ok(), "");
    drop((running, others));
}

fn put_until_accepted(cluster: &Cluster, master: &str, key: &str) {
    eventually("a write", || cluster.etcdctl_at(master, &["put", key, key], "").result());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_restart_one_after_the_other_under_writes() {
    let cluster = start(3);
    let writers = Writers::start(&cluster, 4, 1_500).await;
    for (master, done) in ["master-1", "master-2", "master-3"].into_iter().zip([100, 300, 500]) {
        writers.reached(done).await;
        cluster.terminate(master);
        cluster.revive();
        settled(&cluster, master, &["master-1", "master-2", "master-3"], &[]);
        eventually("the member to catch up", || {
            let quorum = cluster.quorum_seen_by(master)?;
            let members = quorum["members"].as_array().cloned().unwrap_or_default();
            let lag = |name: &str| members.iter().find(|m| m["name"] == name).and_then(|m| m["lag"].as_u64());
            if lag(master).is_some_and(|lag| lag < 100) { Ok(()) } else { Err(quorum.to_string()) }
        });
    }
    let acknowledged = writers.finish().await;
    assert_eq!(acknowledged.len(), 1_500);
    for master in cluster.masters() {
        check_all_there(&cluster, &master.name, &acknowledged).await;
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Starts a master that was added through the etcd API. The id from that API is the secret of its token.
fn start_newcomer(cluster: &Cluster, quorum: u64, id: u64, port: u16) -> Running {
    let template = cluster.member("master-3");
    let through = cluster.member("master-2").peer.expect("a master has one").replace("https://", "");
    let token = format!("{quorum:08x}.{id:x}@{through}");
    let data = cluster.dir().join("newcomer");
    let listen = format!("127.0.0.1:{port}");
    let named = ["--name", "newcomer", "--data-dir", data.to_str().expect("UTF-8"), "--join", &token];
    let flags = [&ELSEWHERE[..4], &["--peer-listen", &listen, "--metrics-listen", "127.0.0.1:0"], &named].concat();
    Running::start(&mut server(&template.data.join("config.toml"), &flags))
}

#[test]
fn etcdctl_changes_the_members() {
    let cluster = start(3);
    let etcdctl = |args: &[&str]| cluster.etcdctl_at("master-1", args, "");
    let list = || -> Value {
        let text = etcdctl(&["member", "list", "-w", "json"]).ok();
        serde_json::from_str(&text).expect("JSON")
    };
    let port = free_port();
    let url = format!("https://127.0.0.1:{port}");
    let peers = format!("--peer-urls={url}");
    etcdctl(&["member", "add", "newcomer", "--learner", &peers]).ok();
    let again = etcdctl(&["member", "add", "newcomer", "--learner", &peers]);
    assert!(again.stderr.contains("Peer URLs already exists"), "{again:?}");
    let found = list();
    let members = found["members"].as_array().expect("members");
    let new = members.iter().find(|member| member["peerURLs"][0] == url).expect("it is listed");
    assert!(new["name"].is_null() && new["isLearner"] == true, "{found}");
    let new = new["ID"].as_u64().expect("an id");
    let id = format!("{new:x}");
    let quorum = found["header"]["cluster_id"].as_u64().expect("an id");
    let joined = start_newcomer(&cluster, quorum, new, port);
    let three = ["master-1", "master-2", "master-3"];
    settled(&cluster, "master-1", &three, &["newcomer"]);

    let refused = etcdctl(&["member", "promote", &format!("{:x}", 1)]);
    assert!(refused.stderr.contains("can only promote a learner member"), "{refused:?}");
    eventually("the new member to be in sync", || etcdctl(&["member", "promote", &id]).result());
    // A fourth voter adds no fault tolerance, so the learner stays without a vote until a voter leaves.
    settled(&cluster, "master-1", &three, &["newcomer"]);
    etcdctl(&["member", "remove", "3"]).ok();
    settled(&cluster, "master-1", &["master-1", "master-2", "newcomer"], &[]);
    let unknown = etcdctl(&["member", "remove", "abc"]);
    assert!(unknown.stderr.contains("member not found"), "{unknown:?}");
    etcdctl(&["member", "update", "2", "--peer-urls=https://localhost:1"]).ok();
    let found = list();
    let members = found["members"].as_array().expect("members");
    assert!(members.iter().any(|member| member["peerURLs"][0] == "https://localhost:1"), "{found}");
    let peer = cluster.member("master-2").peer.expect("a master has one");
    etcdctl(&["member", "update", "2", &format!("--peer-urls={peer}")]).ok();
    settled(&cluster, "master-1", &["master-1", "master-2", "newcomer"], &[]);
    drop(joined);
}

/// The founders as the etcd API lists them: id, name, and whether it is a learner.
const FOUNDERS: [(u64, &str, bool); 3] = [(1, "master-1", false), (2, "master-2", false), (3, "master-3", false)];

fn listed(members: &[etcd_client::Member]) -> Vec<(u64, &str, bool)> {
    members.iter().map(|member| (member.id(), member.name(), member.is_learner())).collect()
}

/// The founders and one learner.
fn founders_and(id: u64, name: &str) -> Vec<(u64, &str, bool)> {
    FOUNDERS.into_iter().chain([(id, name, true)]).collect()
}

/// A refusal with etcd's code and message.
fn etcd_says(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), format!("etcdserver: {message}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_library_changes_the_members() {
    let cluster = start(3);
    // The member that is asked is not the leader, and forwards the request.
    let asked = if cluster.leader_seen_by("master-1") == "master-1" { "master-2" } else { "master-1" };
    let mut client = etcd::client(&cluster, &[asked]).await;
    put(&cluster, asked, "before");
    let list = client.member_list().await.expect("members");
    assert_eq!(listed(list.members()), FOUNDERS);
    for member in list.members() {
        let known = cluster.member(member.name());
        assert_eq!(member.peer_urls(), [known.peer.expect("a master has one")]);
        assert_eq!(member.client_urls(), [known.etcd.expect("a master has one")]);
    }
    wrong_changes_are_refused(&cluster, &mut client).await;
    an_added_member_can_be_removed_before_it_joins(&mut client).await;
    a_learner_joins_and_is_removed(&cluster, asked, &mut client).await;

    // The members of the quorum are unchanged.
    settled(&cluster, asked, &["master-1", "master-2", "master-3"], &[]);
    cluster.kill("master-3");
    put_until_accepted(&cluster, asked, "after");
    assert_has(&cluster, asked, &["before", "after"]);
}

async fn assert_is_no_member(client: &mut Client, id: u64) {
    let not_found = etcd_says("NotFound", "member not found");
    assert_eq!(refusal(client.member_promote(id).await), not_found);
    assert_eq!(refusal(client.member_update(id, ["https://127.0.0.1:1".to_owned()]).await), not_found);
    assert_eq!(refusal(client.member_remove(id).await), not_found);
}

async fn wrong_changes_are_refused(cluster: &Cluster, client: &mut Client) {
    assert_is_no_member(client, 0xabc).await;
    let has_a_vote = etcd_says("FailedPrecondition", "can only promote a learner member");
    for (id, ..) in FOUNDERS {
        assert_eq!(refusal(client.member_promote(id).await), has_a_vote);
    }
    let in_use = etcd_says("FailedPrecondition", "Peer URLs already exists");
    let url = cluster.member("master-3").peer.expect("a master has one");
    assert_eq!(refusal(client.member_add([url.as_str()], None).await), in_use);
    assert_eq!(refusal(client.member_update(2, [url]).await), in_use);
    // Quorate supports only one peer URL per member, with a host and a port.
    let invalid = etcd_says("InvalidArgument", "given member URLs are invalid");
    for urls in [&["https://nonsense"][..], &[], &["https://127.0.0.1:1", "https://127.0.0.1:2"]] {
        assert_eq!(refusal(client.member_add(urls, None).await), invalid, "{urls:?}");
    }
    let list = client.member_list().await.expect("members");
    assert_eq!(listed(list.members()), FOUNDERS);
}

async fn an_added_member_can_be_removed_before_it_joins(client: &mut Client) {
    let url = format!("https://127.0.0.1:{}", free_port());
    let added = client.member_add([url.as_str()], None).await.expect("an invitation");
    let new = added.member().expect("the new member");
    let id = new.id();
    assert_eq!((new.name(), new.is_learner()), ("", true));
    assert_eq!(new.peer_urls(), [url.as_str()]);
    // The member is a learner although it was added as a voter: it has not joined, and a fourth voter waits for a
    // fifth.
    assert_eq!(listed(added.member_list()), founders_and(id, ""));
    let in_use = etcd_says("FailedPrecondition", "Peer URLs already exists");
    assert_eq!(refusal(client.member_add([url.as_str()], None).await), in_use);
    let removed = client.member_remove(id).await.expect("taken back");
    assert_eq!(listed(removed.members()), FOUNDERS);
    assert_is_no_member(client, id).await;
}

async fn a_learner_joins_and_is_removed(cluster: &Cluster, asked: &str, client: &mut Client) {
    let three = ["master-1", "master-2", "master-3"];
    let port = free_port();
    let learner = MemberAddOptions::new().with_is_learner();
    let added = client.member_add([format!("https://127.0.0.1:{port}")], Some(learner)).await.expect("an invitation");
    let new = added.member().expect("the new member");
    let (id, quorum) = (new.id(), added.header().expect("a header").cluster_id());
    assert!(new.is_learner());
    assert_eq!(listed(added.member_list()), founders_and(id, ""));
    // The learner has not joined yet.
    let lags = etcd_says("FailedPrecondition", "can only promote a learner member which is in sync with leader");
    assert_eq!(refusal(client.member_promote(id).await), lags);
    let joined = start_newcomer(cluster, quorum, id, port);
    settled(cluster, asked, &three, &["newcomer"]);

    let url = format!("https://localhost:{port}");
    let updated = client.member_update(id, [url.clone()]).await.expect("an update");
    assert_eq!(listed(updated.members()), founders_and(id, "newcomer"));
    let new = updated.members().last().expect("the new member");
    assert_eq!(new.peer_urls(), [url.as_str()]);
    settled(cluster, asked, &three, &["newcomer"]);

    // A removal that waits for a second one can be withdrawn.
    let leaving = client.member_remove(3).await.expect("accepted");
    assert_eq!(listed(leaving.members()), founders_and(id, "newcomer"));
    assert!(leaving.members().iter().any(|member| member.peer_urls() == [url.as_str()]), "{leaving:?}");
    let stays = client.member_promote(3).await.expect("taken back");
    assert_eq!(listed(stays.members()), founders_and(id, "newcomer"));
    let has_a_vote = etcd_says("FailedPrecondition", "can only promote a learner member");
    assert_eq!(refusal(client.member_promote(3).await), has_a_vote);

    drop(joined);
    let leader = cluster.leader_seen_by(asked);
    eventually("the learner to be unreachable", || {
        let quorum = cluster.quorum_seen_by(&leader)?;
        let members = quorum["members"].as_array().cloned().unwrap_or_default();
        let is_gone = members.iter().any(|m| m["name"] == "newcomer" && m["role"] == "unreachable");
        if is_gone { Ok(()) } else { Err(quorum.to_string()) }
    });
    assert_eq!(refusal(client.member_promote(id).await), lags);
    let joined = start_newcomer(cluster, quorum, id, port);
    let promoted = eventually_async("the new member to be in sync", || {
        let mut client = client.clone();
        async move { client.member_promote(id).await }
    })
    .await;
    // The member is still a learner, because it would be the fourth voter.
    assert_eq!(listed(promoted.members()), founders_and(id, "newcomer"));
    let removed = client.member_remove(id).await.expect("a removal");
    assert_eq!(listed(removed.members()), FOUNDERS);
    assert_is_no_member(client, id).await;
    drop(joined);
}
