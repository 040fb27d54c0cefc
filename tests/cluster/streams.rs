//! `kubectl exec`, `attach`, `cp` and `port-forward`, over WebSocket and over SPDY, through every master.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use harness::{Cluster, Lines, Output, Runtime, Spec, eventually, run};

use crate::demo_path::TEST_IMAGE;

/// Pods with two containers that stay, and with one that prints long lines.
pub const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: stays
  annotations: {kubectl.kubernetes.io/default-container: second}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: first, image: IMAGE, imagePullPolicy: Never, command: [sh, -c, "echo from first; exec sleep 3600"]}
  - name: second
    image: IMAGE
    imagePullPolicy: Never
    stdin: true
    command: [sh, -c, "mkdir /w; echo hello >/w/index.html; httpd -p 127.0.0.1:8080 -h /w; httpd -p 9090 -h /w; while read x; do echo got $x; done; sleep 3600"]
---
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: IMAGE
    imagePullPolicy: Never
    command: [sh, -c, "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short; head -c 16384 /dev/zero | tr '\\0' y; echo; printf open-end"]
"#;

/// The transports of `kubectl`: WebSocket, with SPDY as the older one.
const TRANSPORTS: [&str; 2] = ["true", "false"];

fn kubectl(cluster: &Cluster, master: &str, websockets: &str) -> Command {
    let masters = cluster.masters();
    let member = masters.iter().find(|member| member.name == master).expect("a master");
    let mut command = cluster.kubectl_command();
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    command.arg("--server").arg(member.api.as_deref().expect("an API"));
    command
}

fn start() -> Cluster {
    let cluster = Cluster::start(Spec { masters: 3, workers: 1, runtime: Runtime::Docker, flags: vec![] });
    cluster.kubectl(&["apply", "-f", "-"], &PODS.replace("IMAGE", TEST_IMAGE)).ok();
    cluster.kubectl(&["wait", "pod/stays", "--for=condition=Ready", "--timeout=120s"], "").ok();
    cluster
}

#[test]
fn kubectl_runs_commands_in_containers() {
    let cluster = start();
    for (websockets, master) in
        TRANSPORTS.into_iter().flat_map(|w| ["master-1", "master-2", "master-3"].map(|m| (w, m)))
    {
        let exec = |flags: &[&str], command: &[&str], stdin: &str| -> Output {
            run(
                kubectl(&cluster, master, websockets).arg("exec").arg("stays").args(flags).arg("--").args(command),
                stdin,
            )
        };
        let context = format!("websockets: {websockets}, {master}");
        assert_eq!(exec(&[], &["echo", "ready"], "").ok(), "ready\n", "{context}");
        let failed = run(
            kubectl(&cluster, master, websockets).args(["exec", "stays", "-c", "first", "--", "sh", "-c", "exit 5"]),
            "",
        );
        assert!(!failed.success && failed.stderr.contains("exit code 5"), "{context}: {failed:?}");
        let both = exec(&[], &["sh", "-c", "echo out; echo err >&2"], "");
        assert_eq!((both.stdout.as_str(), both.stderr.contains("err\n")), ("out\n", true), "{context}");
        assert_eq!(exec(&["-i"], &["cat"], "hello").ok(), "hello", "{context}: the input ends");
        let large = "x".repeat(1_000_000);
        assert_eq!(exec(&["-i"], &["wc", "-c"], &large).ok().trim(), "1000000", "{context}");
        let lines = exec(&[], &["seq", "1", "100000"], "").ok();
        assert_eq!((lines.lines().count(), lines.lines().last()), (100_000, Some("100000")), "{context}");
        let missing = exec(&[], &["/no/such/command"], "");
        assert!(!missing.success, "{context}: {missing:?}");
        let said = format!("{}{}", missing.stdout, missing.stderr);
        assert!(said.contains("no such file"), "{context}: {said}");
        let unknown = run(kubectl(&cluster, master, websockets).args(["exec", "stays", "-c", "third", "--", "ls"]), "");
        assert!(unknown.stderr.contains("third"), "{context}: {unknown:?}");
    }
}

#[test]
fn kubectl_attaches_copies_and_forwards_ports() {
    let cluster = start();
    let file = cluster.dir().join("file");
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&file, &content).expect("written");
    for websockets in TRANSPORTS {
        let back = cluster.dir().join(format!("back-{websockets}"));
        let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
        run(kubectl(&cluster, "master-2", websockets).args(["cp", &path(&file), "stays:/tmp/file"]), "").ok();
        run(kubectl(&cluster, "master-3", websockets).args(["cp", "stays:/tmp/file", &path(&back)]), "").ok();
        assert_eq!(std::fs::read(&back).expect("the copy"), content, "websockets: {websockets}");

        let mut attach = kubectl(&cluster, "master-1", websockets);
        let mut attached = Lines::start_with_input(attach.args(["attach", "-i", "stays", "-c", "second"]));
        attached.write(&format!("word-{websockets}\n"));
        attached.until("the container's answer", |line| line == format!("got word-{websockets}"));
        drop(attached);

        // The first port is open on localhost only.
        let mut forward =
            Lines::start(kubectl(&cluster, "master-2", websockets).args(["port-forward", "stays", ":8080", ":9090"]));
        let mut ports = Vec::new();
        while ports.len() < 2 {
            let line = forward.until("a forwarded port", |line| line.starts_with("Forwarding from 127.0.0.1:"));
            let port = line.trim_start_matches("Forwarding from 127.0.0.1:").split(' ').next().expect("a port");
            ports.push(port.parse::<u16>().expect("a number"));
        }
        for port in ports {
            for _ in 0..5 {
                eventually("an answer", || fetch(port).map_err(|error| error.to_string()));
            }
        }
    }
}

/// Reads the page of the pod `stays` at a local port.
pub fn fetch(port: u16) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    if answer.ends_with("hello\n") { Ok(()) } else { Err(std::io::Error::other(answer)) }
}

#[test]
fn a_long_line_of_a_log_is_one_line() {
    let cluster = start();
    let ask = |args: &[&str]| cluster.kubectl(&[&["logs", "talks"][..], args].concat(), "");
    let log = |args: &[&str]| ask(args).ok();
    eventually("the end of the log", || match ask(&[]).result() {
        Ok(log) if log.ends_with("open-end") => Ok(()),
        Ok(log) => Err(log.len().to_string()),
        // The container has not started yet.
        Err(output) => Err(output.stderr),
    });
    let lengths = |text: &str| text.lines().map(str::len).collect::<Vec<_>>();
    let whole = [40_000, 5, 16_384, 8];
    assert_eq!(lengths(&log(&[])), whole);
    for lines in 0..=5_usize {
        let expected = &whole[whole.len().saturating_sub(lines)..];
        let tail = format!("--tail={lines}");
        assert_eq!(lengths(&log(&[&tail])), expected, "{tail}");
        assert_eq!(lengths(&log(&[&tail, "-f"])), expected, "{tail} -f");
        let stamped = log(&[&tail, "--timestamps"]);
        assert_eq!(stamped.lines().count(), expected.len(), "{tail} --timestamps");
        assert!(stamped.lines().all(|line| line.starts_with("20") && line.matches('Z').count() == 1), "{tail}");
    }
    assert_eq!(log(&["--tail=1"]), "open-end", "the last line gets no newline");
}
