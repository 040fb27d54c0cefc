//! The Node object and its lease.

use std::sync::atomic::Ordering;

use crate::harness::{Node1, eventually};
use quorate_agent::RuntimeChoice;

async fn lease_owner(node: &Node1) -> String {
    let cluster = &node.cluster;
    eventually("a lease of the node", async || cluster.lease_owner.lock().clone().ok_or("none")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_node_registers_again_with_a_new_lease() {
    let node = Node1::start_hollow();
    let before = lease_owner(&node).await;
    assert_eq!(node.cluster.delete_node(), before);
    let uid = eventually("the node to be there again", async || {
        let node = node.cluster.node.lock();
        node.as_ref().and_then(|node| node.metadata.uid.clone()).ok_or("none")
    })
    .await;
    assert_ne!(uid, before);
    assert_eq!(lease_owner(&node).await, uid, "the lease of the old Node would be collected as garbage");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_users_set_are_kept() {
    let mut node = Node1::start_hollow();
    let cluster = std::sync::Arc::clone(&node.cluster);
    let label = |key: &str| {
        let node = cluster.node.lock();
        node.as_ref().and_then(|node| node.metadata.labels.as_ref()?.get(key).cloned()).unwrap_or_default()
    };
    lease_owner(&node).await;
    assert_eq!((label("tier"), label("kubernetes.io/hostname")), ("given".to_owned(), "node-a".to_owned()));
    let change = |key: &str, value: &str| {
        let mut node = cluster.node.lock();
        let labels = node.as_mut().expect("the node").metadata.labels.get_or_insert_default();
        labels.insert(key.to_owned(), value.to_owned());
    };
    change("tier", "changed");
    change("mine", "too");
    change("kubernetes.io/hostname", "other");

    // The agent reports when another writer has changed the status.
    let reports = cluster.node_reports.load(Ordering::SeqCst);
    cluster.node.lock().as_mut().expect("the node").status = None;
    eventually("another report", async || {
        if cluster.node_reports.load(Ordering::SeqCst) > reports { Ok(()) } else { Err("none") }
    })
    .await;
    assert_eq!((label("tier"), label("mine")), ("changed".to_owned(), "too".to_owned()));

    node.stop_agent().await;
    node.start_agent(RuntimeChoice::Hollow);
    eventually("the machine's own label to be right", async || {
        let name = label("kubernetes.io/hostname");
        if name == "node-a" { Ok(()) } else { Err(name) }
    })
    .await;
    assert_eq!((label("tier"), label("mine")), ("changed".to_owned(), "too".to_owned()));
    node.stop().await;
}
