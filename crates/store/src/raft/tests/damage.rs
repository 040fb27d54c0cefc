//! Tests of a member whose state is damaged or whose disk is full.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_mvcc::{
    Backend, Command, Cursor, DeleteRequest, KeyRange, LeaseId, Op, RangeRequest, Table, Txn, WriteBatch,
};

use super::cluster::{Cluster, PATIENCE, eventually, get, put, put_surely, put_with_lease};
use crate::membership::{Alarm, MemberId};
use crate::raft::config::RaftConfig;
use crate::raft::engine::RaftEngine;
use crate::raft::lifecycle::start::start_node;
use crate::raft::node::Node;
use crate::raft::start;
use crate::raft::state::backend::tests::damage_a_table;
use crate::{Consistency, Store, StoreError};

/// Members whose [`Node`]s a test can reach.
pub struct Nodes {
    pub cluster: Cluster,
    pub nodes: Vec<Arc<Node>>,
    pub stores: Vec<Store>,
}

impl Nodes {
    pub async fn start(size: u64, adjust: fn(&mut RaftConfig)) -> Self {
        let mut cluster = Cluster::prepare(size, adjust);
        cluster.release_ports();
        let (mut nodes, mut stores) = (Vec::new(), Vec::new());
        for id in 1..=size {
            let node = start_node(cluster.config(id)).await.expect("the member starts");
            stores.push(Store::new(Arc::new(RaftEngine::new(node.clone()))));
            nodes.push(node);
        }
        Nodes { cluster, nodes, stores }
    }

    pub async fn leader(&self) -> usize {
        eventually("a leader", async || {
            self.stores.iter().position(|store| store.leadership().borrow().is_active_leader)
        })
        .await
    }

    pub async fn shutdown(self) {
        for store in self.stores {
            store.shutdown().await.expect("it stops");
        }
    }
}

/// Changes a value in the backend of one member only.
fn corrupt(node: &Node) {
    let state = node.instance().expect("it runs").state.current();
    let backend = state.backend();
    let (key, mut row) = {
        let mut cursor = backend.cursor(Table::Versions, &[], None);
        assert!(cursor.seek(&[]).expect("readable"));
        (cursor.key().to_vec(), cursor.value().to_vec())
    };
    *row.last_mut().expect("a value") ^= 1;
    let mut batch = backend.batch();
    batch.put(Table::Versions, &key, &row);
    backend.write(batch).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_from_the_majority_goes_out_of_service() {
    super::cluster::show_logs();
    for leads in [false, true] {
        let nodes = Nodes::start(3, |config| config.integrity_interval = Duration::from_millis(200)).await;
        let leader = nodes.leader().await;
        let differing = if leads { leader } else { (leader + 1) % 3 };
        for i in 0..20 {
            put_surely(&nodes.stores[differing], &format!("k{i}"), b"value").await;
        }
        corrupt(&nodes.nodes[differing]);
        let refused = eventually("the end of its service", async || {
            match get(&nodes.stores[differing], "k3", Consistency::Local).await {
                Err(StoreError::Fatal(reason)) => Some(reason),
                _ => None,
            }
        })
        .await;
        assert!(refused.contains("join anew"), "{refused}");
        let write = nodes.stores[differing].propose(put("k", b"v")).await;
        assert!(matches!(write, Err(StoreError::Fatal(_))), "{write:?}");

        let other = &nodes.stores[(differing + 1) % 3];
        put_surely(other, "after", b"1").await;
        assert_eq!(get(other, "k3", Consistency::Linearizable).await, Ok(Some(b"value".to_vec())));
        let status = other.quorum_status().await.expect("a status");
        let alarmed: Vec<_> = status.members.iter().filter(|member| !member.alarms.is_empty()).collect();
        assert_eq!(alarmed.len(), 1, "{status:?}");
        assert_eq!((alarmed[0].member.id, &alarmed[0].alarms[..]), (id_of(differing), &[Alarm::Corrupt][..]));

        nodes.stores[differing].shutdown().await.expect("it stops");
        let refused = start(nodes.cluster.config(id_of(differing))).await.err().expect("it stays out");
        assert!(refused.to_string().contains("out of service"), "{refused}");
        nodes.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_damaged_table_ends_and_names_the_remedy() {
    const KEYS: usize = 64;
    super::cluster::show_logs();
    let nodes = Nodes::start(3, |_| {}).await;
    let leader = nodes.leader().await;
    let (damaged, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let store = &nodes.stores[damaged];
    // Random values cannot be compressed.
    let values: Vec<Vec<u8>> = (0..KEYS).map(|_| (0..64).flat_map(|_| rand::random::<[u8; 64]>()).collect()).collect();
    for (i, value) in values.iter().enumerate() {
        put_surely(store, &format!("k{i}"), value).await;
    }
    // After this read the member has applied all of them.
    eventually("a read", async || get(store, "k0", Consistency::Linearizable).await.ok()).await;
    nodes.nodes[damaged].instance().expect("it runs").state.flush().expect("flushed");
    damage_a_table(&nodes.cluster.data_dir(id_of(damaged)).join("state").join("generation-1"));

    let refused = eventually("a read of the damaged table", async || {
        for (i, value) in values.iter().enumerate() {
            match get(store, &format!("k{i}"), Consistency::Local).await {
                Ok(found) => assert_eq!(found.as_ref(), Some(value), "k{i}"),
                Err(StoreError::Fatal(reason)) => return Some(reason),
                Err(error) => panic!("{error}"),
            }
        }
        None
    })
    .await;
    assert!(refused.contains("is damaged") && refused.contains("join anew"), "{refused}");
    let reason = tokio::time::timeout(PATIENCE, store.removed()).await.expect("the member ends");
    assert!(reason.contains("out of service") && reason.contains("join anew"), "{reason}");
    let write = store.propose(put("k", b"v")).await;
    assert!(matches!(write, Err(StoreError::Fatal(_))), "{write:?}");
    put_surely(&nodes.stores[other], "after", b"1").await;

    store.shutdown().await.expect("it stops");
    let refused = start(nodes.cluster.config(id_of(damaged))).await.err().expect("it stays out");
    assert!(refused.to_string().contains("out of service"), "{refused}");
    nodes.shutdown().await;
}

fn id_of(place: usize) -> MemberId {
    place as u64 + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers() {
    super::cluster::show_logs();
    let nodes = Nodes::start(1, |config| config.request_timeout = Duration::from_secs(1)).await;
    let (node, store) = (&nodes.nodes[0], &nodes.stores[0]);
    put_surely(store, "before", b"1").await;
    node.space.pretend_full.store(true, Ordering::Relaxed);
    eventually("a refusal", async || match store.propose(put("full", b"1")).await {
        Err(StoreError::NoSpace(member)) => Some(member),
        // A command that was in the log's queue already waits for space.
        _ => None,
    })
    .await;
    assert_eq!(get(store, "before", Consistency::Linearizable).await, Ok(Some(b"1".to_vec())), "reads continue");
    let status = store.quorum_status().await.expect("a status");
    assert_eq!(status.members[0].alarms, [Alarm::NoSpace]);
    // The deletion is accepted. It waits, because in this test even the reserve has no space.
    let delete = Op::Delete(DeleteRequest { range: KeyRange::key("before"), prev_kv: false });
    let deleted = store.txn(Txn { success: vec![delete], ..Txn::default() }).await;
    assert!(matches!(deleted, Err(StoreError::OutcomeUnknown(_))), "{deleted:?}");

    node.space.pretend_full.store(false, Ordering::Relaxed);
    put_surely_with_space(store, "after").await;
    assert_eq!(get(store, "before", Consistency::Linearizable).await, Ok(None), "the deletion has happened");
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_space_shuts_down_and_loses_no_acknowledged_write() {
    super::cluster::show_logs();
    let nodes = Nodes::start(1, |config| config.request_timeout = Duration::from_secs(1)).await;
    let store = &nodes.stores[0];
    put_surely(store, "before", b"1").await;
    nodes.nodes[0].space.pretend_full.store(true, Ordering::Relaxed);
    let waits = store.propose(put("waits", b"1")).await;
    assert!(matches!(waits, Err(StoreError::OutcomeUnknown(_) | StoreError::NoSpace(_))), "{waits:?}");
    store.shutdown().await.expect("it stops");
    let again = start(nodes.cluster.config(id_of(0))).await.expect("it starts");
    let read = eventually("a read", async || get(&again, "before", Consistency::Linearizable).await.ok()).await;
    assert_eq!(read, Some(b"1".to_vec()));
    again.shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_while_the_disk_is_full() {
    super::cluster::show_logs();
    let (renewed, left) = (LeaseId(1), LeaseId(2));
    let nodes = Nodes::start(1, |_| {}).await;
    let (node, store) = (&nodes.nodes[0], &nodes.stores[0]);
    put_surely(store, "before", b"1").await;
    for (id, key) in [(renewed, "renewed"), (left, "left")] {
        let granted = store.propose(Command::LeaseGrant { id, ttl_seconds: 4 }).await.expect("proposed");
        assert!(granted.outcome.is_ok(), "{granted:?}");
        store.propose(put_with_lease(key, b"1", id)).await.expect("proposed").outcome.expect("put");
    }
    // The log uses the space of the reserve, which is not filled again while a waiter is registered.
    let reserve_is_needed = node.space.register_waiter();
    node.space.report_full(&"a test");
    let refused = store.propose(put("full", b"1")).await;
    assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    eventually("the end of the lease that is not renewed", async || {
        let reply = store.propose(Command::LeaseKeepAlive { id: renewed }).await.expect("it is accepted");
        reply.outcome.expect("the lease is there");
        get(store, "left", Consistency::Linearizable).await.expect("readable").is_none().then_some(())
    })
    .await;
    assert_eq!(get(store, "renewed", Consistency::Linearizable).await, Ok(Some(b"1".to_vec())));
    drop(reserve_is_needed);
    nodes.shutdown().await;
}

async fn put_surely_with_space(store: &Store, key: &str) {
    eventually("a write", async || store.propose(put(key, b"1")).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_space_transfers_leadership() {
    super::cluster::show_logs();
    let nodes = Nodes::start(3, |config| config.request_timeout = Duration::from_secs(2)).await;
    let full = nodes.leader().await;
    put_surely(&nodes.stores[full], "before", b"1").await;
    nodes.nodes[full].space.pretend_full.store(true, Ordering::Relaxed);
    put_surely_with_space(&nodes.stores[(full + 1) % 3], "a write on a full disk").await;
    // Without the reserve the full member cannot store the vote for its successor, so the test does not ask it.
    let other = eventually("another leader", async || {
        (0..3).find(|&place| place != full && nodes.stores[place].leadership().borrow().is_active_leader)
    })
    .await;
    put_surely(&nodes.stores[other], "after", b"1").await;
    nodes.nodes[full].space.pretend_full.store(false, Ordering::Relaxed);
    let read =
        eventually("its return", async || get(&nodes.stores[full], "after", Consistency::Linearizable).await.ok());
    assert_eq!(read.await, Some(b"1".to_vec()));
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_applying_loses_nothing() {
    let nodes = Nodes::start(3, |_| {}).await;
    for round in 0..2 {
        let leader = nodes.leader().await;
        put_surely(&nodes.stores[leader], "before", b"1").await;
        for node in &nodes.nodes {
            node.instance().expect("it runs").state.panics.store(true, Ordering::Relaxed);
        }
        let key = format!("the write that panics {round}");
        put_surely(&nodes.stores[leader], &key, b"1").await;
        for store in &nodes.stores {
            let read = eventually("a read", async || get(store, &key, Consistency::Linearizable).await.ok()).await;
            assert_eq!(read, Some(b"1".to_vec()));
        }
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_bound_to_the_state_of_its_barrier() {
    super::cluster::show_logs();
    let nodes = Nodes::start(1, |_| {}).await;
    let (node, store) = (&nodes.nodes[0], &nodes.stores[0]);
    put_surely(store, "before", b"1").await;
    let request = RangeRequest::new(KeyRange::key("before"));
    let reader = store.reader(Consistency::Linearizable).await.expect("a reader");
    assert_eq!(reader.range(&request).expect("readable").count, 1);
    // The instance dies, and the next one opens the state from disk, where the write may be missing.
    let first = {
        let instance = node.instance().expect("it runs");
        instance.state.panics.store(true, Ordering::Relaxed);
        Arc::downgrade(&instance.state)
    };
    put_surely(store, "the write that panics", b"1").await;
    eventually("the end of the first state", async || (first.strong_count() == 0).then_some(())).await;
    let refused = reader.range(&request);
    assert!(matches!(refused, Err(StoreError::NoLeader(_))), "{refused:?}");
    let again = eventually("a reader", async || store.reader(Consistency::Linearizable).await.ok()).await;
    assert_eq!(again.range(&request).expect("readable").count, 1);
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_without_its_log_is_refused() {
    let mut cluster = Cluster::start(1).await;
    put_surely(cluster.store(1), "k", b"1").await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.data_dir(1).join("log")).expect("removed");
    let refused = start(cluster.config(1)).await.err().expect("its votes are lost");
    assert!(refused.to_string().contains("join anew"), "{refused}");
}
