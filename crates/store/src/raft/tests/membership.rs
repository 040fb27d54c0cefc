//! Tests of membership changes.

use std::collections::BTreeMap;
use std::net::TcpListener;

use super::cluster::{Cluster, PATIENCE, eventually, get, put, put_surely};
use crate::changes::{Change, Invite, MemberName};
use crate::membership::{Member, MemberId, MemberRole};
use crate::raft::{JoinConfig, PeerListen, RaftConfig, Recovery, Timing, join, restore, start};
use crate::{Consistency, Intent, Store, StoreError};

/// A member that has joined later.
struct Joined {
    member: Member,
    store: Store,
}

/// Invites a member through `asked`, and starts it once it has joined.
async fn add(cluster: &Cluster, asked: &Store, name: &str, how: Invite) -> Joined {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = listener.local_addr().expect("bound").to_string();
    let invite = Invite { name: name.to_owned(), peer, ..how };
    let invited = asked.change(Change::Invite(invite)).await.expect("an invitation");
    let token = invited.token.expect("a token").parse().expect("a token");
    let data_dir = cluster.data_dir(invited.member.id);
    let config = JoinConfig {
        token,
        name: name.to_owned(),
        api_port: 1,
        etcd: None,
        data_dir: data_dir.clone(),
        tls: cluster.tls().clone(),
        peer_via: BTreeMap::new(),
    };
    let member = join(config).await.expect("it may join");
    assert_eq!((member.id, &member.name[..]), (invited.member.id, name));
    let listen = PeerListen::Bound(listener);
    let config = RaftConfig::new(member.clone(), Vec::new(), data_dir, listen, cluster.tls().clone());
    Joined { store: start(config).await.expect("it starts"), member }
}

/// Waits until `store` knows exactly these voters.
async fn voters(store: &Store, expected: &[MemberId]) {
    eventually("the voters", async || {
        let quorum = store.quorum_status().await.ok()?;
        let voters = quorum.members.iter().filter(|status| status.voter).map(|status| status.member.id);
        let mut voters: Vec<_> = voters.collect();
        voters.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        (voters == expected).then_some(())
    })
    .await;
}

async fn remove(asked: &Store, id: MemberId) -> Option<String> {
    asked.change(Change::Remove { member: MemberName::Id(id) }).await.expect("accepted").waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_grows_to_three_members_and_shrinks_to_one() {
    let cluster = Cluster::start(1).await;
    let first = cluster.store(1);
    put_surely(first, "a", b"1").await;
    let second = add(&cluster, first, "m2", Invite::default()).await;
    voters(first, &[1]).await;
    // Any member can be asked.
    eventually("it to follow", async || second.store.leadership().borrow().leader.clone()).await;
    let third = add(&cluster, &second.store, "m3", Invite::default()).await;
    let all = [1, second.member.id, third.member.id];
    for store in [first, &second.store, &third.store] {
        voters(store, &all).await;
    }
    put_surely(&third.store, "b", b"2").await;
    for store in [first, &second.store, &third.store] {
        assert_eq!(get(store, "a", Consistency::Linearizable).await, Ok(Some(b"1".to_vec())));
        assert_eq!(get(store, "b", Consistency::Linearizable).await, Ok(Some(b"2".to_vec())));
    }
    assert!(remove(&third.store, 1).await.is_some_and(|waits| waits.contains("keeps its vote")));
    voters(first, &all).await;
    // The leader may be one of the two members that leave now; the remaining one completes the change.
    assert_eq!(remove(&third.store, second.member.id).await, None);
    voters(&third.store, &[third.member.id]).await;
    for removed in [first, &second.store] {
        let reason = tokio::time::timeout(PATIENCE, removed.removed()).await.expect("it learns of its removal");
        assert!(reason.contains("removed from the quorum"), "{reason}");
    }
    put_surely(&third.store, "c", b"3").await;
    third.store.shutdown().await.expect("it stops");
    second.store.shutdown().await.expect("it stops");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_invited_as_a_learner_votes_only_when_it_is_promoted() {
    let cluster = Cluster::start(1).await;
    let first = cluster.store(1);
    put_surely(first, "a", b"1").await;
    let learner = add(&cluster, first, "learner", Invite { learner: true, ..Invite::default() }).await;
    let second = add(&cluster, first, "m2", Invite::default()).await;
    assert!(remove(first, 1).await.is_none(), "the second member can take its place");
    voters(&second.store, &[second.member.id]).await;
    let quorum = second.store.quorum_status().await.expect("a status");
    let found = quorum.members.iter().find(|status| status.member.id == learner.member.id).expect("it is listed");
    assert!(!found.voter && found.role == MemberRole::Learner && found.member.intent == Intent::Learner, "{found:?}");
    put_surely(&learner.store, "b", b"2").await;
    let promote = || Change::Promote { member: MemberName::Text("learner".to_owned()) };
    let waits = eventually("it to have caught up", async || second.store.change(promote()).await.ok()).await.waits;
    assert!(waits.is_some_and(|waits| waits.contains("has no vote yet")));
    let third = add(&cluster, &second.store, "m3", Invite::default()).await;
    voters(&second.store, &[learner.member.id, second.member.id, third.member.id]).await;
    for joined in [learner, second, third] {
        joined.store.shutdown().await.expect("it stops");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_does_not_count_towards_a_majority() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    put_surely(cluster.store(leader), "a", b"1").await;
    let (wiped, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.stop(wiped).await;
    cluster.stop(other).await;
    std::fs::remove_dir_all(cluster.data_dir(wiped)).expect("wiped");
    cluster.restart(wiped).await;
    let reason = tokio::time::timeout(PATIENCE, cluster.store(wiped).removed()).await.expect("it learns of it");
    assert!(reason.contains("another directory"), "{reason}");
    // Without the wiped member's vote, the leader has no majority.
    let lonely = cluster.store(leader).propose(put("b", b"2")).await;
    assert!(matches!(lonely, Err(StoreError::NoLeader(_) | StoreError::OutcomeUnknown(_))), "{lonely:?}");
    cluster.restart(other).await;
    put_surely(cluster.store(other), "c", b"3").await;
    assert_eq!(get(cluster.store(leader), "a", Consistency::Linearizable).await, Ok(Some(b"1".to_vec())));
    cluster.stop(wiped).await;
    let refused = start(cluster.config(wiped)).await.err().expect("it does not start again");
    assert!(refused.to_string().contains("is no member any more"), "{refused}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_forms_only_when_all_founders_are_present() {
    let mut cluster = Cluster::prepare(3, |_| {});
    cluster.restart(3).await;
    cluster.restart(1).await;
    let mut leadership = cluster.store(3).leadership();
    let led = leadership.wait_for(|known| known.leader.is_some());
    // A majority that did not wait for the third founder would elect a leader within this time.
    let led = tokio::time::timeout(4 * Timing::default().election_max, led).await;
    assert!(led.is_err(), "there is no leader");
    cluster.restart(2).await;
    cluster.leader().await;
    put_surely(cluster.store(2), "a", b"1").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_is_recovered_with_all_its_data() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    for i in 0..20 {
        put_surely(cluster.store(1), &format!("k{i}"), b"v").await;
    }
    let running = Recovery::open(&cluster.data_dir(2)).await.err().expect("it runs");
    assert!(running.to_string().contains("is in use"), "{running}");
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    let recovery = Recovery::open(&cluster.data_dir(2)).await.expect("a survivor");
    assert_eq!(recovery.member().id, 2);
    assert_eq!(recovery.given_up().iter().map(|member| member.id).collect::<Vec<_>>(), [1, 3]);
    recovery.commit().await.expect("recovered");
    cluster.restart(2).await;
    voters(cluster.store(2), &[2]).await;
    put_surely(cluster.store(2), "more", b"v").await;
    assert_eq!(get(cluster.store(2), "k19", Consistency::Linearizable).await, Ok(Some(b"v".to_vec())));
    let joined =
        add(&cluster, cluster.store(2), "new", Invite { replaces: Some("m2".to_owned()), ..Invite::default() });
    let joined = joined.await;
    voters(&joined.store, &[joined.member.id]).await;
    joined.store.shutdown().await.expect("it stops");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_not_replaced_before_its_replacement_has_joined() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (dead, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let asked = cluster.store(leader);
    let invite = |name: &str, replaces: MemberId| Invite {
        name: name.to_owned(),
        peer: format!("{name}:1"),
        replaces: Some(format!("m{replaces}")),
        ..Invite::default()
    };
    for (name, replaces) in [("never", dead), ("nor-this", other)] {
        let changed = asked.change(Change::Invite(invite(name, replaces))).await.expect("an invitation");
        assert_eq!(changed.waits, None, "the new member waits for no other one");
    }
    voters(asked, &[1, 2, 3]).await;
    cluster.stop(dead).await;
    let asked = cluster.store(leader);
    let new = add(&cluster, asked, "new", Invite { replaces: Some(format!("m{dead}")), ..Invite::default() }).await;
    voters(&new.store, &[leader, other, new.member.id]).await;
    put_surely(&new.store, "a", b"1").await;
    new.store.shutdown().await.expect("it stops");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_member_can_be_recovered_before_its_first_start() {
    let mut cluster = Cluster::start(3).await;
    put_surely(cluster.store(1), "a", b"1").await;
    let mut chunks = cluster.store(1).backup().await.expect("a backup").into_chunks();
    let mut backup = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        backup.extend_from_slice(&chunk.expect("a chunk"));
    }
    for id in 1..=3 {
        cluster.stop(id).await;
        std::fs::remove_dir_all(cluster.data_dir(id)).expect("lost");
    }
    let members = cluster.members().to_vec();
    restore(std::io::Cursor::new(backup), &cluster.data_dir(2), &members[1], &members).await.expect("restored");
    let recovery = Recovery::open(&cluster.data_dir(2)).await.expect("a survivor");
    recovery.commit().await.expect("recovered");
    cluster.restart(2).await;
    voters(cluster.store(2), &[2]).await;
    assert_eq!(get(cluster.store(2), "a", Consistency::Linearizable).await, Ok(Some(b"1".to_vec())));
    put_surely(cluster.store(2), "b", b"2").await;
    cluster.stop(2).await;
    cluster.restart(2).await;
    assert_eq!(get(cluster.store(2), "b", Consistency::Linearizable).await, Ok(Some(b"2".to_vec())));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_log_is_neither_recovered_nor_started() {
    let mut cluster = Cluster::start(1).await;
    put_surely(cluster.store(1), "a", b"1").await;
    cluster.stop(1).await;
    let log = cluster.data_dir(1).join("log");
    std::fs::remove_dir_all(&log).expect("lost");
    for expected in ["is missing", "has lost its vote"] {
        let recovery = Recovery::open(&cluster.data_dir(1)).await.err().expect("there is nothing to recover from");
        assert!(recovery.to_string().contains(expected), "{recovery}");
        let refused = start(cluster.config(1)).await.err().expect("it does not start");
        assert!(refused.to_string().contains(expected), "{refused}");
        std::fs::create_dir_all(&log).expect("an empty directory");
    }
}
