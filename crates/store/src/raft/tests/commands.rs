//! Tests of members with different versions: no command enters the log that one of them cannot decode.

use quorate_mvcc::{Command, CommandVersion, Reply};

use super::cluster::{PATIENCE, eventually, get, put, put_surely};
use super::damage::Nodes;
use crate::changes::{Change, Invite, MemberName, Token};
use crate::raft::membership::joining;
use crate::raft::network::client::Lane;
use crate::raft::network::messages::{self, JoinRequest, JoinResponse, ProposeRequest, ProposeResponse, Proposed};
use crate::raft::node::Node;
use crate::raft::requests::commands::future;
use crate::raft::requests::proposals;
use crate::raft::{codec, restore, start};
use crate::{Consistency, Store, StoreError};

const TODAY: CommandVersion = CommandVersion::NEWEST;

/// Proposes a command of the future at a member.
async fn propose_future(node: &Node, command: &Command) -> Result<Reply, StoreError> {
    proposals::propose_encoded(node, future::encode(command), future::VERSION, |_| {}).await
}

async fn agreed(store: &Store, version: CommandVersion) {
    eventually("the version of commands", async || (store.command_version() == version).then_some(())).await;
}

/// Starts three members, of which the last one is older.
async fn start_with_an_older_member() -> Nodes {
    super::cluster::show_logs();
    Nodes::start(3, |config| {
        config.commands = if config.member.id == 3 { TODAY } else { future::VERSION };
    })
    .await
}

/// Transfers leadership to the member at `place`.
async fn lead(nodes: &Nodes, place: usize) {
    eventually("the leadership of this member", async || {
        if nodes.stores[place].leadership().borrow().is_active_leader {
            return Some(());
        }
        let to = MemberName::Id(place as u64 + 1);
        drop(nodes.stores[place].change(Change::Transfer { to: Some(to) }).await);
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_waits_until_all_members_can_decode_it() {
    let mut nodes = start_with_an_older_member().await;
    for store in &nodes.stores {
        agreed(store, TODAY).await;
    }
    for node in &nodes.nodes {
        let refused = propose_future(node, &put("future", b"1")).await;
        assert!(matches!(&refused, Err(StoreError::Unsupported(why)) if why.contains("has agreed on")), "{refused:?}");
    }
    // The status shows which member holds the version back.
    let status = nodes.stores[0].quorum_status().await.expect("a status");
    assert_eq!(status.command_version, TODAY.0);
    let known: Vec<_> = status.members.iter().map(|member| member.command_version).collect();
    assert_eq!(known, [Some(future::VERSION.0), Some(future::VERSION.0), Some(TODAY.0)]);

    // The older member is upgraded.
    nodes.stores[2].shutdown().await.expect("it stops");
    let mut config = nodes.cluster.config(3);
    config.commands = future::VERSION;
    let upgraded = start(config).await.expect("it starts");
    for store in [&nodes.stores[0], &nodes.stores[1], &upgraded] {
        agreed(store, future::VERSION).await;
    }
    for (place, node) in nodes.nodes.iter().take(2).enumerate() {
        let key = format!("future {place}");
        let done = eventually("a command of the future", async || match propose_future(node, &put(&key, b"1")).await {
            Ok(reply) => Some(reply),
            Err(StoreError::NoLeader(_) | StoreError::OutcomeUnknown(_)) => None,
            Err(error) => panic!("{error}"),
        });
        assert!(done.await.outcome.is_ok());
        assert_eq!(get(&upgraded, &key, Consistency::Linearizable).await, Ok(Some(b"1".to_vec())));
    }

    // The upgraded member cannot be downgraded.
    upgraded.shutdown().await.expect("it stops");
    let refused = start(nodes.cluster.config(3)).await.err().expect("it is too old");
    assert!(refused.to_string().contains("has agreed on commands of version"), "{refused}");
    nodes.stores.truncate(2);
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_refuses_forwarded_commands_that_an_older_member_cannot_decode() {
    let nodes = start_with_an_older_member().await;
    agreed(&nodes.stores[0], TODAY).await;
    // The first leader knows the command, the second one does not.
    for (leader, why) in [(0, "has agreed on version"), (2, "cannot decode")] {
        lead(&nodes, leader).await;
        let term = nodes.stores[leader].leadership().borrow().term;
        let key = format!("beside {leader}");
        let commands = vec![
            future::encode(&put("future", b"1")),
            codec::encode(&put(&key, b"1")).expect("it encodes"),
            bytes::Bytes::from_static(b"\xffgarbage"),
        ];
        let peer = nodes.nodes[1].peers.get(leader as u64 + 1).expect("a peer");
        let request = ProposeRequest { term, commands };
        let answer: ProposeResponse =
            peer.call(Lane::Bulk, messages::PROPOSE, &request, PATIENCE).await.expect("an answer");
        let [future, beside, garbage] = &answer.outcomes[..] else { panic!("{answer:?}") };
        assert!(matches!(future, Proposed::Unsupported { reason } if reason.contains(why)), "{future:?}");
        assert!(matches!(beside, Proposed::Applied { .. }), "{beside:?}");
        assert!(matches!(garbage, Proposed::Unsupported { .. }), "{garbage:?}");
    }
    // All members are alive and have the same keys.
    put_surely(&nodes.stores[1], "after", b"1").await;
    for store in &nodes.stores {
        assert_eq!(get(store, "after", Consistency::Linearizable).await, Ok(Some(b"1".to_vec())));
        assert_eq!(get(store, "future", Consistency::Linearizable).await, Ok(None));
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_raises_the_command_version() {
    let nodes = Nodes::start(1, |_| {}).await;
    agreed(&nodes.stores[0], TODAY).await;
    let refused = nodes.stores[0].propose(Command::RaiseVersion { version: CommandVersion(99) }).await;
    assert!(matches!(refused, Err(StoreError::Unsupported(_))), "{refused:?}");
    assert_eq!(nodes.stores[0].command_version(), TODAY);
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_is_too_old_is_refused() {
    super::cluster::show_logs();
    let nodes = Nodes::start(1, |config| config.commands = future::VERSION).await;
    agreed(&nodes.stores[0], future::VERSION).await;
    let invite = Invite { name: "m2".to_owned(), peer: "127.0.0.1:1".to_owned(), ..Invite::default() };
    let invited = nodes.stores[0].change(Change::Invite(invite)).await.expect("an invitation");
    let token: Token = invited.token.expect("a token").parse().expect("a token");
    let request = |commands| JoinRequest {
        secret: token.secret.clone(),
        incarnation: 7,
        name: "m2".to_owned(),
        api_port: 1,
        etcd: None,
        is_forwarded: false,
        commands,
    };
    match joining::admit(&nodes.nodes[0], request(TODAY)).await {
        JoinResponse::Refused(why) => assert!(why.contains("m2 knows them up to version"), "{why}"),
        other => panic!("{other:?}"),
    }
    let joined = joining::admit(&nodes.nodes[0], request(future::VERSION)).await;
    assert!(matches!(joined, JoinResponse::Joined(_)), "{joined:?}");
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_does_not_judge_a_joiner() {
    super::cluster::show_logs();
    let nodes = Nodes::start(3, |config| config.commands = future::VERSION).await;
    for store in &nodes.stores {
        agreed(store, future::VERSION).await;
    }
    lead(&nodes, 0).await;
    for store in &nodes.stores[1..] {
        store.shutdown().await.expect("it stops");
    }
    // Its state may be stale, so it refuses nobody for good.
    let request = JoinRequest {
        secret: "unknown".to_owned(),
        incarnation: 7,
        name: "m4".to_owned(),
        api_port: 1,
        etcd: None,
        is_forwarded: false,
        commands: TODAY,
    };
    let answer = joining::admit(&nodes.nodes[0], request).await;
    assert!(matches!(answer, JoinResponse::NotNow(_)), "{answer:?}");
    nodes.stores[0].shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_quorum_keeps_its_version() {
    super::cluster::show_logs();
    let nodes = Nodes::start(1, |config| config.commands = future::VERSION).await;
    agreed(&nodes.stores[0], future::VERSION).await;
    put_surely(&nodes.stores[0], "k", b"1").await;
    let mut backup = Vec::new();
    let copied = nodes.stores[0].backup().await.expect("a backup");
    let mut keep = |bytes: bytes::Bytes| {
        backup.extend_from_slice(&bytes);
        Ok(())
    };
    copied.write(&mut keep).expect("it is written");
    let members = nodes.cluster.members().to_vec();
    let dir = nodes.cluster.data_dir(9);
    nodes.stores[0].shutdown().await.expect("it stops");
    restore(std::io::Cursor::new(backup), &dir, &members[0], &members).await.expect("it is restored");
    let config = |commands| {
        let mut config = nodes.cluster.config(1);
        config.data_dir.clone_from(&dir);
        config.commands = commands;
        config
    };
    let refused = start(config(TODAY)).await.err().expect("it is too old");
    assert!(refused.to_string().contains("has agreed on commands of version"), "{refused}");
    let restored = start(config(future::VERSION)).await.expect("it starts");
    assert_eq!(restored.command_version(), future::VERSION);
    restored.shutdown().await.expect("it stops");
}
