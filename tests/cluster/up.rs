//! Behaviour of `quorate up` and `quorate down`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use harness::{Cluster, Lines, Member, Output, Runtime, Spec, binary, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

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
fn a_cluster_lists_its_members_and_leaves_nothing_behind() {
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

/// Returns the response to a plain HTTP request, including its headers.
fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("a listener");
    write!(connection, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer in text");
    answer
}

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("server.toml");
    let example = include_str!("../../config/server.toml");
    std::fs::write(&file, example.replace("name = \"master-1\"", "name = \"in-file\"")).expect("a file");
    // None of these names is a member, and the refusal contains the one that is used.
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

/// Directory of a detached cluster. Dropping this kills the processes, however the test ends.
struct Detached {
    dir: TempDir,
}

impl Detached {
    fn new() -> Detached {
        Detached { dir: tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command of `quorate` on the directory.
    fn quorate(&self, command: &str, flags: &[&str]) -> Output {
        run(Command::new(binary("quorate")).arg(command).arg("--data-dir").arg(self.dir.path()).args(flags), "")
    }

    /// Starts one master and one worker, and detaches.
    fn up(&self, flags: &[&str]) -> Output {
        let pair = ["--detach", "--runtime", "hollow", "--masters", "1", "--workers", "1"];
        self.quorate("up", &[&pair[..], flags].concat())
    }

    /// Takes the cluster down, and returns the output.
    fn down(&self) -> String {
        self.quorate("down", &[]).ok()
    }

    fn qctl(&self, args: &[&str]) -> String {
        let mut qctl = Command::new(binary("qctl"));
        run(qctl.env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.dir.path()).args(args), "").ok()
    }

    fn file(&self) -> Value {
        let text = std::fs::read(self.path("cluster.json")).expect("cluster.json");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn members(&self) -> Vec<Member> {
        serde_json::from_value(self.file()["members"].clone()).expect("members")
    }

    /// Returns the processes that have the directory on their command line.
    fn running(&self) -> BTreeSet<Pid> {
        let name = self.dir.path().file_name().expect("a name").to_string_lossy();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        processes
            .filter(|process| {
                // The process may have ended meanwhile.
                let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&command).contains(&*name)
            })
            .filter_map(|process| process.file_name().to_str().and_then(|pid| pid.parse::<i32>().ok()))
            .map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // The cleanup does not use `quorate down`, because that is under test.
        for pid in self.running() {
            // The process may have ended meanwhile.
            kill(pid, Signal::SIGKILL).ok();
        }
        // A second panic would abort the whole test run.
        if std::thread::panicking() {
            return;
        }
        eventually("the end of all members", || {
            let running = self.running();
            if running.is_empty() { Ok(()) } else { Err(running) }
        });
    }
}

fn pids(members: &[Member]) -> BTreeSet<Pid> {
    members.iter().map(|member| Pid::from_raw(member.pid)).collect()
}

/// Returns all ports of the members in the order of the help text.
fn ports(members: &[Member]) -> Vec<u16> {
    let urls = members.iter().flat_map(|m| [&m.api, &m.etcd, &m.peer, &m.metrics, &m.node]).flatten();
    urls.map(|url| {
        let port = url.split_once("://127.0.0.1:").and_then(|(_, port)| port.parse::<u16>().ok());
        port.unwrap_or_else(|| panic!("{url} has no port of this machine"))
    })
    .collect()
}

/// Listens on `count` consecutive ports.
fn hold_ports(count: u16) -> Vec<TcpListener> {
    let listen = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    // These ports are below those of outgoing connections.
    (20_000..32_000_u16)
        .step_by(usize::from(count))
        .find_map(|base| (base..base + count).map(listen).collect::<Result<Vec<_>, _>>().ok())
        .expect("free ports")
}

fn first_port(held: &[TcpListener]) -> u16 {
    held[0].local_addr().expect("an address").port()
}

/// Returns the lines of standard error, without warnings that only some kernels cause.
fn stderr_lines(output: &Output) -> Vec<&str> {
    output.stderr.lines().filter(|line| !line.starts_with("quorate: warning: ")).collect()
}

#[test]
fn down_stops_all_members_and_up_finds_their_data() {
    let cluster = Detached::new();
    let started = cluster.up(&[]).ok();
    assert!(started.starts_with("started 1 masters and 1 workers") && started.contains("\nready after "), "{started}");
    let members = cluster.members();
    assert_eq!(cluster.running(), pids(&members));
    cluster.qctl(&["create", "configmap", "kept", "--from-literal=a=1"]);
    let kept = || cluster.qctl(&["get", "configmap", "kept", "-o", "jsonpath={.metadata.uid} {.data.a}"]);
    let before = kept();

    let file = cluster.file();
    let dir = cluster.dir.path().display();
    assert_eq!(cluster.down(), format!("stopped {dir}\n"));
    assert_eq!(cluster.running(), BTreeSet::new());
    assert_eq!(cluster.file(), file);
    assert!(members[0].data.join("store").is_dir() && cluster.path("kubeconfig").is_file());
    assert_eq!(cluster.down(), format!("nothing was running in {dir}\n"));
    assert_eq!(cluster.file(), file);

    cluster.up(&[]).ok();
    assert_eq!(ports(&cluster.members()), ports(&members));
    assert_eq!(kept(), before);
    // A member that has died by itself does not block `down`.
    let worker = cluster.members().pop().expect("a worker");
    kill(Pid::from_raw(worker.pid), Signal::SIGKILL).expect("it runs");
    assert_eq!(cluster.down(), format!("stopped {dir}\n"));
    assert_eq!(cluster.running(), BTreeSet::new());
}

#[test]
fn sigint_and_sigterm_stop_all_members() {
    let cluster = Detached::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = Command::new(binary("quorate"));
        command.args(["up", "--runtime", "hollow", "--masters", "1", "--workers", "1", "--data-dir"]);
        let mut up = Lines::start(command.arg(cluster.dir.path()));
        up.until("that all members are ready", |line| line.starts_with("ready after "));
        let members = pids(&cluster.members());
        assert!(members.len() == 2 && cluster.running().is_superset(&members), "{members:?}");

        up.signal(signal);
        up.until("that it stops", |line| line == "stopping");
        assert!(up.ended(), "up fails after {signal}");
        assert_eq!(cluster.running(), BTreeSet::new(), "{signal}");
        assert!(cluster.path("cluster.json").is_file(), "cluster.json is gone");
    }
}

#[test]
fn down_fails_in_a_directory_without_a_cluster() {
    let cluster = Detached::new();
    let refused = cluster.quorate("down", &[]);
    assert!(!refused.success && refused.stdout.is_empty(), "{refused:?}");
    let dir = cluster.dir.path().display();
    assert_eq!(stderr_lines(&refused), [format!("quorate: {dir} holds no cluster.json; nothing was started there")]);
}

#[test]
fn members_listen_from_the_base_port_on() {
    let cluster = Detached::new();
    let mut held = hold_ports(5);
    let base = first_port(&held);
    let port = base.to_string();
    let flags = ["--base-port", port.as_str()];
    let taken = held.remove(2);
    drop(held);
    let refused = cluster.up(&flags);
    assert!(!refused.success && refused.stdout.is_empty(), "{refused:?}");
    let line = format!("quorate: port {} is not free: Address already in use (os error 98)", base + 2);
    assert_eq!(stderr_lines(&refused), [line]);
    assert!(!cluster.path("cluster.json").exists());
    assert_eq!(cluster.running(), BTreeSet::new());

    drop(taken);
    cluster.up(&flags).ok();
    let members = cluster.members();
    assert_eq!(ports(&members), (base..base + 5).collect::<Vec<_>>());
    let api = format!("https://127.0.0.1:{base}");
    assert_eq!(members[0].api.as_deref(), Some(api.as_str()));
    assert_eq!(cluster.qctl(&["get", "--raw", "/readyz", "--server", &api]).trim_end(), "ok");
    let ready = get(&format!("127.0.0.1:{}", base + 3), "/readyz");
    assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
}

#[test]
fn ports_follow_the_order_of_the_members() {
    let cluster = Detached::new();
    let held = hold_ports(14);
    let base = first_port(&held);
    drop(held);
    let port = base.to_string();
    let flags = ["--prepare", "--runtime", "hollow", "--masters", "3", "--workers", "2", "--base-port", port.as_str()];
    cluster.quorate("up", &flags).ok();
    assert_eq!(cluster.running(), BTreeSet::new());
    let members = cluster.members();
    let names = members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["master-1", "master-2", "master-3", "worker-1", "worker-2"]);
    assert_eq!(ports(&members), (base..base + 14).collect::<Vec<_>>());
}

#[test]
fn a_base_port_that_cannot_be_used_is_refused() {
    for (base, part) in [("0", "0 is not in 1.."), ("65532", "--base-port is too high for so many members")] {
        let cluster = Detached::new();
        let refused = cluster.up(&["--base-port", base]);
        assert!(!refused.success && refused.stderr.contains(part), "{refused:?}");
        assert!(!cluster.path("cluster.json").exists());
    }
}
