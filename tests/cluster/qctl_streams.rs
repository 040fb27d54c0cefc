//! `qctl exec`, `attach`, `cp` and `port-forward` on real containers.

use std::fs;
use std::process::Command;

use harness::{Cluster, Lines, Runtime, Spec, binary, eventually, run};

use crate::demo_path::TEST_IMAGE;
use crate::streams::{PODS, fetch};

#[test]
fn qctl_connects_to_containers() {
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Docker, flags: vec![] });
    cluster.qctl(&["create", "-f", "-"], &PODS.replace("IMAGE", TEST_IMAGE)).ok();
    cluster.qctl(&["wait", "pod/stays", "--for=condition=Ready", "--timeout=120s"], "").ok();
    commands_run_in_containers(&cluster);
    a_terminal_is_passed_on(&cluster);
    a_process_is_attached_to(&cluster);
    files_are_copied_both_ways(&cluster);
    ports_are_forwarded(&cluster);
}

fn commands_run_in_containers(cluster: &Cluster) {
    let exec = |flags: &[&str], command: &[&str], stdin: &str| {
        cluster.qctl(&[&["exec", "stays"], flags, &["--"], command].concat(), stdin)
    };
    assert_eq!(exec(&[], &["echo", "two  words"], "").ok(), "two  words\n");
    assert_eq!(exec(&["-i"], &["cat"], "hello").ok(), "hello", "the input ends");
    let large = "x".repeat(1_000_000);
    assert_eq!(exec(&["-i"], &["wc", "-c"], &large).ok().trim(), "1000000");
    assert_eq!(exec(&["-i"], &["cat"], &large).ok().len(), large.len(), "both directions at once");
    let lines = exec(&[], &["seq", "1", "100000"], "").ok();
    assert_eq!((lines.lines().count(), lines.lines().last()), (100_000, Some("100000")));

    let mut command = cluster.qctl_command();
    command.args(["exec", "stays", "-c", "first", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let ended = command.output().expect("qctl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!((ended.status.code(), text(&ended.stdout)), (Some(7), "out\n".to_owned()));
    assert_eq!(text(&ended.stderr), "err\ncommand terminated with exit code 7\n");
    let unknown = cluster.qctl(&["exec", "stays", "-c", "third", "--", "ls"], "");
    assert_eq!(unknown.stderr, "error: container third is not valid for pod stays out of: first, second\n");
}

/// Runs `qctl` in a terminal of a known size.
fn a_terminal_is_passed_on(cluster: &Cluster) {
    let qctl = binary("qctl");
    let line = format!("stty cols 91 rows 17; {} exec -it stays -- sh -c 'tty && stty size'", qctl.display());
    let mut script = Command::new("script");
    script.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.dir()).args(["-qec", &line, "/dev/null"]);
    // The size is sent after the command has started, as by kubectl.
    eventually("the terminal of this size", || {
        let output = run(&mut script, "").result().map_err(|output| format!("{output:?}"))?;
        let lines: Vec<&str> = output.lines().map(str::trim).collect();
        if lines.iter().any(|line| line.starts_with("/dev/pts/")) && lines.contains(&"17 91") {
            Ok(())
        } else {
            Err(output)
        }
    });
}

fn a_process_is_attached_to(cluster: &Cluster) {
    let mut attached = Lines::start_with_input(cluster.qctl_command().args(["attach", "-iq", "stays", "-c", "second"]));
    attached.write("word\n");
    attached.until("the container's answer", |line| line == "got word");
}

fn files_are_copied_both_ways(cluster: &Cluster) {
    let source = cluster.dir().join("source");
    fs::create_dir_all(source.join("deep/empty")).expect("writable");
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(source.join("deep/file"), &content).expect("writable");
    fs::write(source.join("top"), "top").expect("writable");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    cluster.qctl(&["cp", &text(&source), "default/stays:/tmp/copy"], "").ok();
    // A directory that exists gets the source below it.
    cluster.qctl(&["cp", &text(&source.join("top")), "stays:/tmp/copy"], "").ok();
    let listed = cluster.qctl(&["exec", "stays", "--", "find", "/tmp/copy", "-type", "f"], "").ok();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["/tmp/copy/deep/file", "/tmp/copy/top"]);

    cluster.qctl(&["exec", "stays", "--", "ln", "-s", "/etc/passwd", "/tmp/copy/link"], "").ok();
    let back = cluster.dir().join("back");
    let copied = cluster.qctl(&["cp", "stays:/tmp/copy", &text(&back)], "");
    assert!(copied.success && copied.stderr.contains("warning: skipping symlink: "), "{copied:?}");
    assert_eq!(fs::read(back.join("deep/file")).expect("the copy"), content);
    assert!(back.join("deep/empty").is_dir() && !back.join("link").exists());
    let file = cluster.dir().join("one-file");
    cluster.qctl(&["cp", "stays:/tmp/copy/top", &text(&file)], "").ok();
    assert_eq!(fs::read_to_string(&file).expect("the file"), "top");
    let missing = cluster.qctl(&["cp", "stays:/no/such/file", &text(&file)], "");
    assert!(!missing.success && missing.stderr.contains("/no/such/file"), "{missing:?}");
}

fn ports_are_forwarded(cluster: &Cluster) {
    cluster.qctl(&["label", "pod", "stays", "app=stays"], "").ok();
    let exposed = cluster.qctl(&["expose", "pod", "stays", "--name=web", "--port=80", "--target-port=9090"], "").ok();
    assert_eq!(exposed, "service/web exposed\n");
    // The first port is open on localhost only.
    for args in [&["pod/stays", ":8080", ":9090"][..], &["svc/web", ":80"]] {
        let mut forward = Lines::start(cluster.qctl_command().arg("port-forward").args(args));
        for wanted in &args[1..] {
            let line = forward.until("a forwarded port", |line| line.starts_with("Forwarding from 127.0.0.1:"));
            let (local, remote) =
                line.trim_start_matches("Forwarding from 127.0.0.1:").split_once(" -> ").expect("two ports");
            let expected = if *wanted == ":80" { "9090" } else { &wanted[1..] };
            assert_eq!(remote, expected, "{line}");
            let local: u16 = local.parse().expect("a number");
            for _ in 0..5 {
                eventually("an answer", || fetch(local).map_err(|error| error.to_string()));
            }
        }
    }
}
