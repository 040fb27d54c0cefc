//! Tests of votes: a whole member, and a model of quorums whose members run different versions.

use std::collections::BTreeSet;

use futures::future::join_all;
use openraft::raft::AppendEntriesResponse;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cluster::last_of_three;
use crate::membership::MemberId;
use crate::raft::codec;
use crate::raft::elections::voting;
use crate::raft::log::votes::Votes;
use crate::raft::node::Instance;
use crate::raft::types::{AppendRequest, LogId, Vote, VoteRequest};

/// Asks for a vote as a candidate that has the whole log, and may disturb the leader.
async fn is_granted(instance: &Instance, vote: Vote) -> bool {
    let last_log_id = Some(LogId::new(vote.leader_id, u64::MAX));
    let request = VoteRequest { vote, last_log_id, leadership_transfer: true };
    voting::answer(instance, request).await.expect("it runs").vote_granted
}

async fn follows(instance: &Instance, vote: Vote) -> bool {
    let request = AppendRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let answer = instance.raft.append_entries(request).await.expect("it runs");
    !matches!(answer, AppendEntriesResponse::HigherVote(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_votes_once_in_a_term_and_never_for_less_than_older_versions_would() {
    let (_cluster, node, store) = last_of_three().await;
    // Without the others the member does not begin an election, since nobody answers its pre-votes.
    let instance = node.instance().expect("it runs");
    let term = instance.metrics().current_term + 10;

    assert!(is_granted(&instance, Vote::new(term, 7)).await);
    assert!(is_granted(&instance, Vote::new(term, 7)).await, "the first answer may have been lost");
    assert!(!is_granted(&instance, Vote::new(term, 9)).await, "two candidates of a term could win");
    assert!(!follows(&instance, Vote::new_committed(term, 5)).await, "it has promised more to the candidate 7");
    assert!(follows(&instance, Vote::new_committed(term, 7)).await);
    assert!(!is_granted(&instance, Vote::new(term, 9)).await);
    assert!(follows(&instance, Vote::new_committed(term, 9)).await, "members of older versions may have elected it");
    assert!(!follows(&instance, Vote::new_committed(term, 7)).await);

    for term in term + 1..term + 30 {
        let answers = join_all((4..14).map(|id| is_granted(&instance, Vote::new(term, id)))).await;
        assert_eq!(answers.iter().filter(|granted| **granted).count(), 1, "of ten candidates at once");
    }
    drop(instance);
    store.shutdown().await.expect("it stops");
}

#[test]
fn votes_and_log_ids_are_encoded_as_in_older_versions() {
    let encoded = codec::encode(&Vote::new_committed(300, 7)).expect("it encodes");
    assert_eq!(&encoded[..], [251, 44, 1, 7, 1]);
    let id = LogId::new(Vote::new(300, 7).leader_id, 99);
    assert_eq!(&codec::encode(&id).expect("it encodes")[..], [251, 44, 1, 7, 99]);
}

/// The rules by which versions of Quorate vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// Candidates of one term are ordered by their ids; a member votes for a greater one too.
    Ordered,
    /// Candidates of one term are not ordered, and an elected one ranks above the others. No released version.
    FirstOnly,
    /// The rules of this version.
    Both,
}

struct Voter {
    rules: Rules,
    votes: Votes,
    /// Entries, each as the leader that has written it.
    log: Vec<(u64, MemberId)>,
    granted_by: BTreeSet<MemberId>,
    acknowledged_by: BTreeSet<MemberId>,
}

impl Voter {
    fn vote(&self) -> Vote {
        self.votes.last().unwrap_or(Vote::new(0, 0))
    }

    fn accepts(&mut self, vote: Vote) -> bool {
        let is_accepted = match self.rules {
            Rules::Ordered | Rules::Both => vote >= self.vote(),
            Rules::FirstOnly => {
                let rank = |vote: Vote| (vote.leader_id.term, vote.committed);
                rank(vote) > rank(self.vote()) || vote == self.vote()
            }
        };
        if is_accepted && vote != self.vote() {
            self.votes.save(vote);
            self.granted_by.clear();
            self.acknowledged_by.clear();
        }
        is_accepted
    }
}

#[derive(Clone)]
enum Message {
    Ask { vote: Vote, last: Option<(u64, MemberId)>, length: usize },
    Granted { vote: Vote },
    Append { vote: Vote, log: Vec<(u64, MemberId)> },
    Appended { vote: Vote },
}

/// Runs five members whose messages are late, repeated or never arrive. Returns whether two of them committed different logs,
/// and whether a term had two leaders.
fn run(seed: u64, rules: [Rules; 2]) -> (bool, bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let voter = |random: &mut StdRng| Voter {
        rules: rules[random.random_range(0..2)],
        votes: Votes::default(),
        log: Vec::new(),
        granted_by: BTreeSet::new(),
        acknowledged_by: BTreeSet::new(),
    };
    let mut voters: Vec<Voter> = (0..5).map(|_| voter(&mut random)).collect();
    let mut messages: Vec<(MemberId, MemberId, Message)> = Vec::new();
    let mut committed: Vec<Vec<(u64, MemberId)>> = Vec::new();
    let mut leaders = BTreeSet::new();
    let index = |id: MemberId| usize::try_from(id).expect("small");
    for _ in 0..150 {
        let id: MemberId = random.random_range(0..5);
        let own = &mut voters[index(id)];
        let vote = own.vote();
        if random.random_ratio(1, 16) && !(vote.committed && vote.leader_id.node_id == id) {
            let vote = Vote::new(vote.leader_id.term + 1, id);
            assert!(own.accepts(vote));
            own.granted_by.insert(id);
            let ask = Message::Ask { vote, last: own.log.last().copied(), length: own.log.len() };
            messages.extend((0..5).filter(|peer| *peer != id).map(|peer| (id, peer, ask.clone())));
        }
        if messages.is_empty() {
            continue;
        }
        let chosen = random.random_range(0..messages.len());
        let is_repeated = random.random_ratio(1, 8);
        let (from, to, message) = if is_repeated { messages[chosen].clone() } else { messages.swap_remove(chosen) };
        let own = &mut voters[index(to)];
        match message {
            Message::Ask { vote, last, length } => {
                let has_log = (last, length) >= (own.log.last().copied(), own.log.len());
                let is_excluded = own.rules == Rules::Both && own.votes.excludes(&vote).is_some();
                // A second candidate may have been asked for at the same time.
                let is_raced = random.random_ratio(1, 4);
                let is_asked = has_log && (!is_excluded || is_raced);
                if is_asked && own.accepts(vote) && (own.rules != Rules::Both || own.votes.begin_with(&vote)) {
                    messages.push((to, from, Message::Granted { vote }));
                }
            }
            Message::Granted { vote } if own.vote() == vote => {
                own.granted_by.insert(from);
                if own.granted_by.len() == 3 {
                    let vote = Vote::new_committed(vote.leader_id.term, to);
                    assert!(own.accepts(vote));
                    leaders.insert((vote.leader_id.term, to));
                    own.log.push((vote.leader_id.term, to));
                    own.acknowledged_by.insert(to);
                    let append = Message::Append { vote, log: own.log.clone() };
                    messages.extend((0..5).filter(|peer| *peer != to).map(|peer| (to, peer, append.clone())));
                }
            }
            Message::Append { vote, log } => {
                if own.accepts(vote) {
                    own.log = log;
                    messages.push((to, from, Message::Appended { vote }));
                }
            }
            Message::Appended { vote } if own.vote() == vote => {
                own.acknowledged_by.insert(from);
                if own.acknowledged_by.len() == 3 {
                    committed.push(own.log.clone());
                }
            }
            Message::Granted { .. } | Message::Appended { .. } => {}
        }
    }
    let is_split =
        committed.iter().any(|one| committed.iter().any(|other| !one.starts_with(other) && !other.starts_with(one)));
    let terms: BTreeSet<u64> = leaders.iter().map(|(term, _)| *term).collect();
    (is_split, terms.len() < leaders.len())
}

#[test]
fn members_of_this_version_are_safe_beside_either_older_rule() {
    const RUNS: u64 = 20_000;
    let splits = |rules: [Rules; 2]| (0..RUNS).filter(|seed| run(*seed, rules).0).count();
    assert!(
        splits([Rules::Ordered, Rules::FirstOnly]) > 0,
        "the model finds the fault of a mixture of the older rules"
    );
    for rules in [Rules::Ordered, Rules::FirstOnly, Rules::Both] {
        assert_eq!(splits([Rules::Both, rules]), 0, "beside {rules:?}");
    }
    assert!((0..RUNS).any(|seed| run(seed, [Rules::Ordered; 2]).1), "the model finds terms with two leaders");
    for rules in [Rules::FirstOnly, Rules::Both] {
        assert!(!(0..RUNS).any(|seed| run(seed, [Rules::Both, rules]).1), "a term has two leaders beside {rules:?}");
    }
}
