//! `quorate up` itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use harness::{Cluster, Runtime, Spec, binary, run};

#[test]
fn an_even_quorum_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut up = Command::new(binary("quorate"));
    let output = run(up.args(["up", "--masters", "4", "--data-dir"]).arg(dir.path()), "");
    assert!(!output.success);
    assert!(output.stderr.contains("survive the loss of 1"), "{}", output.stderr);
    assert!(!dir.path().join("cluster.json").exists());
}

#[test]
fn a_cluster_says_who_is_in_it_and_leaves_nothing_behind() {
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Hollow, flags: vec![] });
    let members = cluster.members();
    assert_eq!(members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["master-1", "worker-1"]);
    let (master, worker) = (&members[0], &members[1]);
    assert!(master.api.as_deref().is_some_and(|url| url.starts_with("https://")));
    assert!(master.peer.is_some() && master.metrics.is_some() && master.node.is_none());
    assert!(worker.node.is_some() && worker.api.is_none());
    assert_eq!(cluster.leader_seen_by("master-1"), "master-1");
    let metrics = master.metrics.as_deref().and_then(|url| url.strip_prefix("http://")).expect("plain HTTP");
    let ready = get(metrics, "/readyz");
    assert!(ready.starts_with("HTTP/1.0 200") && ready.ends_with("\r\n\r\nok\n"), "{ready}");
    assert!(get(metrics, "/metrics").contains("\nquorate_raft_is_leader 1\n"));

    let pids = members.iter().map(|m| m.pid).collect::<Vec<_>>();
    drop(cluster);
    for pid in pids {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&cmdline).contains("quorate-test-"), "{pid} still runs");
    }
}

/// The answer to a plain request, with its head.
fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("somebody listens");
    write!(connection, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer in text");
    answer
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("server.toml");
    let example = include_str!("../../config/server.toml");
    std::fs::write(&file, example.replace("name = \"master-1\"", "name = \"in-file\"")).expect("a file");
    // None of these is a member, and the refusal names the one that counts.
    for (variable, flag, counts) in [
        (None, None, "in-file"),
        (Some("in-variable"), None, "in-variable"),
        (Some("in-variable"), Some("in-flag"), "in-flag"),
        (None, Some("in-flag"), "in-flag"),
    ] {
        let mut server = Command::new(binary("quorate"));
        server.args(["server", "--config"]).arg(&file);
        server.envs(variable.map(|name| ("QUORATE_NAME", name)));
        server.args(flag.map(|name| format!("--name={name}")));
        let output = run(&mut server, "");
        assert!(!output.success && output.stderr.contains(&format!("`name` is {counts:?}")), "{}", output.stderr);
    }
}
