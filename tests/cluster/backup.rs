//! A backup of a running quorum, and a new quorum made from it.

use std::fs;
use std::process::Command;

use harness::{Cluster, Runtime, Spec, binary, eventually, run};

fn quorate(args: &[&str]) -> harness::Output {
    run(Command::new(binary("quorate")).args(args), "")
}

#[test]
fn a_new_quorum_begins_where_the_backup_ends() {
    let cluster = Cluster::start(Spec { masters: 3, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    let config_map = |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    cluster.kubectl(&["create", "-f", "-"], &config_map("before")).ok();
    cluster.etcdctl_at("master-2", &["put", "greeting", "hello"], "").ok();

    let file = cluster.dir().join("backup");
    let path = file.to_str().expect("a path in UTF-8");
    cluster.qctl(&["backup", path], "").ok();
    let again = cluster.qctl(&["backup", path], "");
    assert!(!again.success && again.stderr.contains("exists already"), "{again:?}");
    let snapshot = cluster.dir().join("snapshot");
    let snapshot = snapshot.to_str().expect("a path in UTF-8");
    cluster.etcdctl_at("master-3", &["snapshot", "save", snapshot], "").ok();
    cluster.kubectl(&["create", "-f", "-"], &config_map("after")).ok();

    // All is lost but the backup.
    for master in cluster.masters() {
        cluster.kill(&master.name);
    }
    let damaged = cluster.dir().join("damaged");
    let mut bytes = fs::read(&file).expect("the backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).expect("a copy");
    for master in cluster.masters() {
        let config = master.data.join("config.toml");
        let config = config.to_str().expect("a path in UTF-8");
        let refused = quorate(&["restore", "--config", config, path]);
        assert!(!refused.success && refused.stderr.contains("is not empty"), "{refused:?}");
        fs::remove_dir_all(master.data.join("store")).expect("the old store");
        let damaged = damaged.to_str().expect("a path in UTF-8");
        let refused = quorate(&["restore", "--config", config, damaged]);
        assert!(!refused.success && refused.stderr.contains("cannot restore"), "{refused:?}");
        quorate(&["restore", "--config", config, snapshot]).ok();
    }
    cluster.revive();
    eventually("what was backed up", || cluster.kubectl(&["get", "configmap", "before"], "").result());
    let after = cluster.kubectl(&["get", "configmap", "after"], "");
    assert!(after.stderr.contains("NotFound"), "{after:?}");
    assert_eq!(cluster.etcdctl_at("master-1", &["get", "greeting"], "").ok(), "greeting\nhello\n");
    cluster.kubectl(&["create", "-f", "-"], &config_map("later")).ok();
}
