//! The own calls of Kubernetes' client libraries, on three masters and while the leader dies. The scripts are in
//! `tests/clients`, one for each library.

mod kube_rs;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Cluster, Lines, Runtime, Spec, installed_clients};

use crate::demo_path::TEST_IMAGE;
use crate::writers::{Acknowledged, check_all_there};

fn start() -> Cluster {
    Cluster::start(Spec { masters: 3, workers: 1, runtime: Runtime::Docker, flags: vec![] })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn python(name: &str) -> Command {
    let mut command = Command::new(installed_clients().join("python/bin/python"));
    command.arg(script(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script whose client goes through the leader for as long as it lives. The script announces each step, and asks
/// for the leader's death when it writes and watches.
async fn survives(mut command: Command) {
    let cluster = start();
    let leader = cluster.leader_seen_by("master-1");
    let balancer = cluster.balancer(&leader);
    command.env("KUBECONFIG", cluster.kubeconfig_for(&balancer.url())).env("HOME", cluster.dir());
    command.env("CLIENT_IMAGE", TEST_IMAGE).env("QUORATE_CLIENTS", installed_clients());
    let mut script = Lines::start_with_input(&mut command);
    while script.until("the next step", |_| true) != "kill the leader" {}
    cluster.kill(&leader);
    script.write("killed\n");
    let mut acknowledged = Acknowledged::new();
    loop {
        let line = script.until("the end of the script", |_| true);
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["acknowledged", name, uid] => {
                acknowledged.insert(name.to_owned(), uid.to_owned());
            }
            ["done"] => break,
            _ => {}
        }
    }
    assert!(script.ended(), "the script failed");

    assert!(acknowledged.len() > 100, "{acknowledged:?}");
    for master in cluster.masters().iter().filter(|master| master.name != leader) {
        check_all_there(&cluster, &master.name, &acknowledged).await;
    }
    cluster.revive();
    check_all_there(&cluster, &leader, &acknowledged).await;
}

#[tokio::test]
async fn the_python_clients_calls_survive_the_leader() {
    survives(python("client_python.py")).await;
}

#[tokio::test]
async fn kr8s_calls_survive_the_leader() {
    survives(python("client_kr8s.py")).await;
}

#[tokio::test]
async fn lightkubes_calls_survive_the_leader() {
    survives(python("client_lightkube.py")).await;
}

#[tokio::test]
async fn the_javascript_clients_calls_survive_the_leader() {
    let mut command = Command::new("node");
    command.arg(script("client_javascript.mjs"));
    survives(command).await;
}
