//! Commands while the leader dies.

use std::time::Instant;

use harness::{Deadline, Lines};

use super::Kubectl;

pub fn commands_survive_the_leader(kubectl: &Kubectl<'_>) {
    let cluster = kubectl.cluster;
    let leader = cluster.leader_seen_by("master-1");
    let balancer = cluster.balancer(&leader);
    let client = kubectl.through(&balancer.url());
    // A watch of `kubectl` ends with its connection, so this one goes through a master that stays.
    let survivor = cluster.masters().into_iter().find(|master| master.name != leader).expect("a survivor");
    let steady = kubectl.through(survivor.api.as_deref().expect("a master has an API"));
    let format = r#"{.type} {.object.metadata.name} {.object.data.round}{"\n"}"#;
    let watch = format!("get cm -l test=death -w --output-watch-events -o 'jsonpath={format}'");
    let mut watch = Lines::start(&mut steady.command(&watch));
    // These commands resume their watch.
    let late = "wait deployment/web --for=jsonpath={.spec.minReadySeconds}=1 --timeout=120s";
    let mut waits = Lines::start(&mut client.command(late));

    for number in 0..5 {
        write(&client, &format!("write-before-{number}"), &mut watch);
    }
    std::thread::scope(|scope| {
        let death = scope.spawn(|| cluster.kill(&leader));
        for number in 0.. {
            if death.is_finished() {
                break;
            }
            write(&client, &format!("write-while-{number}"), &mut watch);
        }
    });
    for number in 0..5 {
        write(&client, &format!("write-after-{number}"), &mut watch);
    }
    let patch = "patch deployment/web -p '{\"spec\":{\"minReadySeconds\":1}}'";
    assert_eq!(repeated(&client, patch), "deployment.apps/web patched\n");
    waits.until("the change", |line| line == "deployment.apps/web condition met");
    assert!(waits.ended());
    repeated(&client, "rollout status deployment/web --timeout=120s");
    let address = repeated(&client, "get pods -l app=web -o jsonpath={.items[0].metadata.name}");
    assert_eq!(repeated(&client, &format!("exec {address} -- echo alive")), "alive\n");
}

/// Creates a ConfigMap and changes it, and waits until the watch has shown both.
fn write(client: &Kubectl<'_>, name: &str, watch: &mut Lines) {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "test": "death" } },
        "data": { "round": "0" },
    });
    let started = Instant::now();
    for attempt in 1.. {
        let output = client.run("create -f -", &object.to_string());
        // An earlier attempt, whose answer was lost, has created it.
        if output.success || (attempt > 1 && output.stderr.contains("AlreadyExists")) {
            break;
        }
        assert!(!output.stderr.contains("AlreadyExists"), "{output:?}");
        assert!(started.elapsed() < Deadline::default().0, "{output:?}");
    }
    repeated(client, &format!("patch cm {name} -p '{{\"data\":{{\"round\":\"1\"}}}}'"));
    assert_eq!(watch.until("the creation", |_| true), format!("ADDED {name} 0"));
    assert_eq!(watch.until("the change", |_| true), format!("MODIFIED {name} 1"));
}

/// Runs a command until it succeeds, as a user does whose connection has ended.
fn repeated(client: &Kubectl<'_>, line: &str) -> String {
    let started = Instant::now();
    loop {
        let output = client.run(line, "");
        if output.success {
            return output.stdout;
        }
        assert!(started.elapsed() < Deadline::default().0, "{line}: {output:?}");
    }
}
