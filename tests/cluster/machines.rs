//! Clusters on simulated machines, set up with only the binary. The commands are those of README.md and
//! docs/operations.md.

use harness::{Machine, Network, eventually};
use serde_json::Value;

const README: &str = include_str!("../../README.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Returns a command after checking that the documents contain it.
fn documented(command: &str) -> &str {
    let is_there = [README, OPERATIONS].iter().any(|text| text.lines().any(|line| line.contains(command)));
    assert!(is_there, "the documents do not contain `{command}`");
    command
}

/// Waits until `master` reports exactly these voters, all reachable, and these learners.
fn settled(master: &Machine, voters: &[&str], learners: &[&str]) {
    eventually("the quorum to settle", || {
        let quorum = json(master, "qctl quorum -o json")?;
        let members = quorum["members"].as_array().cloned().unwrap_or_default();
        let names = |is_voter: bool| -> Vec<String> {
            let some = members.iter().filter(|m| m["voter"] == is_voter && m["role"] != "unreachable");
            some.map(|m| m["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let is_settled = names(true) == voters && names(false) == learners;
        if is_settled && members.len() == voters.len() + learners.len() { Ok(()) } else { Err(quorum.to_string()) }
    });
}

fn json(master: &Machine, line: &str) -> Result<Value, String> {
    let text = master.run(line).result().map_err(|output| output.stderr)?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// Waits until exactly these nodes exist and are ready.
fn ready(master: &Machine, nodes: &[&str]) {
    eventually("nodes to be ready", || {
        let listed = json(master, "qctl get nodes -o json")?;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let is_ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        let names: Vec<_> = items.iter().filter(|node| is_ready(node)).map(|node| &node["metadata"]["name"]).collect();
        if names == nodes && items.len() == nodes.len() { Ok(()) } else { Err(listed.to_string()) }
    });
}

/// Waits until a Deployment has all its pods, and only on these nodes.
fn deployed(master: &Machine, name: &str, nodes: &[&str]) {
    eventually("the pods to run", || {
        let deployment = json(master, &format!("qctl get deployment {name} -o json"))?;
        let pods = json(master, &format!("qctl get pods -l app={name} -o json"))?;
        let on: Vec<_> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
            .collect();
        let is_complete = deployment["status"]["availableReplicas"] == deployment["spec"]["replicas"];
        let is_there = on.iter().all(|node| nodes.contains(&node.as_str()));
        if is_complete && is_there { Ok(()) } else { Err(format!("{} on {on:?}", deployment["status"])) }
    });
}

/// Runs a command that must be refused, and returns its standard error.
fn refused(machine: &Machine, line: &str) -> String {
    let output = machine.run(line);
    assert!(!output.success, "{line}: {output:?}");
    output.stderr
}

#[test]
fn bare_machines_form_a_cluster_that_loses_and_gains_machines() {
    let mut network = Network::start();
    let mut m1 = network.machine("m1", 1);
    let mut m2 = network.machine("m2", 2);
    let mut m3 = network.machine("m3", 3);
    let mut w1 = network.machine("w1", 11);
    let mut w2 = network.machine("w2", 12);

    m1.start(documented("quorate server --init"));
    let master_line = m1.printed_line("quorate server --join");
    let worker_line = m1.printed_line("quorate agent --server");
    documented("quorate server --join");
    documented("quorate agent --server");
    m2.start(&master_line);
    let next = m1.run(documented("qctl token create --role master")).ok();
    m3.start(next.trim());
    settled(&m1, &["m1", "m2", "m3"], &[]);
    // Only the runtime of the workers differs from that on real machines.
    let worker_line = format!("{worker_line} --runtime hollow");
    w1.start(&worker_line);
    w2.start(&worker_line);
    ready(&m1, &["w1", "w2"]);

    m2.run("qctl create deployment web --image=example --replicas=4").ok();
    deployed(&m3, "web", &["w1", "w2"]);
    let tokens = m1.run(documented("qctl token list")).ok();
    let is_shown = ["2/10", "w1", "w2", "1/1", "m3"].iter().all(|part| tokens.contains(part));
    assert!(is_shown, "{tokens}");

    // A master loses power, and another machine replaces it.
    m3.kill();
    drop(m3);
    let mut m4 = network.machine("m4", 4);
    let line = m1.run(documented("qctl token create --role master --replaces m3")).ok();
    m4.start(line.trim());
    settled(&m1, &["m1", "m2", "m4"], &[]);

    // A token admits only the number of machines that it was created for.
    let m5 = network.machine("m5", 5);
    let stderr = refused(&m5, &master_line);
    assert!(stderr.contains("is used up") && !stderr.contains("m2"), "{stderr}");
    let (token, hosts) = master_line.split_once('@').expect("masters to ask");
    let (secret, _) = token.rsplit_once('.').expect("the hash of an authority");
    let stderr = refused(&m5, &format!("{secret}.{}@{hosts}", "f".repeat(64)));
    assert!(stderr.contains("somebody is in between"), "{stderr}");

    // A worker is drained and removed.
    m1.run(documented("qctl drain w2")).ok();
    w2.stop();
    m1.run(documented("qctl delete node w2")).ok();
    ready(&m1, &["w1"]);
    deployed(&m1, "web", &["w1"]);

    // Another machine cannot join under the name of an existing worker.
    let imposter = network.machine("imposter", 13);
    let stderr = refused(&imposter, &format!("{worker_line} --node-name w1"));
    assert!(stderr.contains("another machine is the node w1"), "{stderr}");

    // The first master has no special role, and needs no flags when it is started again.
    m1.kill();
    let scale = || m2.run("qctl scale deployment web --replicas=5").result().map_err(|output| output.stderr);
    eventually("another leader", scale);
    deployed(&m2, "web", &["w1"]);
    m1.start(documented("quorate server"));
    settled(&m4, &["m1", "m2", "m4"], &[]);
    w1.stop();
    w1.start("quorate agent");
    ready(&m1, &["w1"]);
    let shown = m1.run(documented("quorate pki show")).ok();
    for part in ["ca.crt", "peer.crt", "m1, 10.0.0.1", "quorate-peer-ca"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}

/// Returns the expiry and the fingerprint of the certificate in `file`.
fn certificate(machine: &Machine, data_dir: &str, file: &str) -> (String, String) {
    let text = machine.run(&format!("quorate pki show --data-dir {data_dir} -o json")).ok();
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let found = shown.as_array().and_then(|list| list.iter().find(|c| c["file"] == file)).expect("that certificate");
    let text = |key: &str| found[key].as_str().expect("a text").to_owned();
    (text("expires"), text("fingerprint"))
}

#[test]
fn certificates_renew_themselves_while_they_are_in_use() {
    const SERVER: &str = "/var/lib/quorate/server";
    const AGENT: &str = "/var/lib/quorate/agent";
    let mut network = Network::start();
    let (mut m1, mut m2) = (network.machine("m1", 1), network.machine("m2", 2));
    let mut w1 = network.machine("w1", 11);
    m1.start("quorate server --init --certificate-lifetime 45s");
    m2.start(&format!("{} --certificate-lifetime 45s", m1.printed_line("quorate server --join")));
    w1.start(&format!("{} --runtime hollow", m1.printed_line("quorate agent --server")));
    settled(&m1, &["m1"], &["m2"]);
    ready(&m1, &["w1"]);
    let files = || {
        let server =
            ["server.crt", "peer.crt", "node-client.crt", "admin.crt"].map(|file| certificate(&m1, SERVER, file));
        let agent = ["client.crt", "serving.crt"].map(|file| certificate(&w1, AGENT, file));
        server.into_iter().chain(agent).collect::<Vec<_>>()
    };
    let before = files();
    let last = before.iter().map(|(expires, _)| expires.clone()).max().expect("certificates");
    eventually("the first certificates to expire", || {
        let now = w1.run("date -u +%Y-%m-%dT%H:%M:%SZ").ok();
        if now.trim() > last.as_str() { Ok(()) } else { Err(now) }
    });
    for ((_, before), (expires, after)) in before.iter().zip(files()) {
        assert!(*before != after && expires > last, "a certificate was not renewed");
    }
    // New connections use the new certificates of the API, of peers in both directions, and of the agent.
    m2.stop();
    m1.run("qctl create namespace later").ok();
    m2.start("quorate server");
    settled(&m1, &["m1"], &["m2"]);
    m2.run("qctl get namespace later").ok();
    w1.stop();
    w1.start("quorate agent");
    m1.run("qctl create deployment web --image=example --replicas=1").ok();
    deployed(&m1, "web", &["w1"]);
}

#[test]
fn a_worker_whose_node_was_deleted_joins_again_with_a_new_token() {
    const AGENT: &str = "/var/lib/quorate/agent";
    let mut network = Network::start();
    let mut m1 = network.machine("m1", 1);
    let mut w1 = network.machine("w1", 11);
    m1.start("quorate server --init");
    let line = format!("{} --runtime hollow", m1.printed_line("quorate agent --server"));
    w1.start(&line);
    ready(&m1, &["w1"]);
    // Its agent registers the Node again, but the certificates cannot be renewed any more.
    m1.run(documented("qctl delete node w2").replace("w2", "w1").as_str()).ok();
    ready(&m1, &["w1"]);
    let (_, before) = certificate(&w1, AGENT, "client.crt");
    w1.stop();
    let token = m1.run(documented("qctl token create --role worker --token-only")).ok();
    let line = documented("quorate agent --token TOKEN").replace("TOKEN", token.trim());
    let stderr = refused(&w1, &line);
    assert!(
        stderr.contains("`qctl delete node w1` first") && stderr.contains("was removed from the cluster"),
        "{stderr}"
    );
    m1.run("qctl delete node w1").ok();
    w1.start(&line);
    ready(&m1, &["w1"]);
    let (_, after) = certificate(&w1, AGENT, "client.crt");
    assert_ne!(before, after, "the worker has not joined again");
    // A token that is used already, or that admits no machine, does not keep a worker from starting.
    w1.stop();
    m1.run(&format!("qctl token revoke {}", token.split('.').next().expect("an id"))).ok();
    w1.start(&line);
    m1.run("qctl create deployment web --image=example --replicas=1").ok();
    deployed(&m1, "web", &["w1"]);
    assert_eq!(certificate(&w1, AGENT, "client.crt").1, after);
    w1.stop();
    let revoked = m1.run("qctl token create --role worker --token-only").ok();
    m1.run(&format!("qctl token revoke {}", revoked.split('.').next().expect("an id"))).ok();
    w1.start(&format!("quorate agent --token {revoked}"));
    m1.run("qctl scale deployment web --replicas=2").ok();
    deployed(&m1, "web", &["w1"]);
}
