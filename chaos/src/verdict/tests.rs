use std::collections::BTreeSet;

use super::*;
use crate::checker::Status;
use crate::checker::events::tests::{put, watch};
use crate::checker::hashes::Round;
use crate::checker::workload;
use crate::clients::PREFIX;
use crate::history::{
    Api, Counted, History, Increment, InformerLog, InformerRecord, LeaseEvent, LeaseLog, MachineSeen, Operation,
    Outcome, Settled, Start, Transaction,
};
use crate::nemesis::{AgentDeath, Change, ServiceLevel};

const SECOND: Micros = 1_000_000;
const MEMBERS: usize = 3;

fn register() -> String {
    format!("{PREFIX}reg/1")
}

fn pair() -> String {
    "chaos/txn/1/a".to_owned()
}

fn operation(api: Api, at: Micros, request: Transaction, observed: &[(&str, &str)], revision: u64) -> Operation {
    let key = request.writes.first().map_or_else(|| request.reads[0].clone(), |(key, _)| key.clone());
    let observed = observed.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
    Operation {
        client: "c".to_owned(),
        api,
        object: key,
        member: 0,
        called: at,
        returned: at + 10,
        request,
        outcome: Outcome::Done { succeeded: true, observed, revision },
    }
}

/// A short run without violations.
fn truth() -> Recorded {
    let (register, pair, object) = (register(), pair(), format!("{NAME}1"));
    let operations = vec![
        operation(Api::Etcd, 100, Transaction::put(&register, "x"), &[], 2),
        operation(Api::Etcd, 200, Transaction::get(&register), &[(&register, "x")], 2),
        operation(Api::Etcd, 300, Transaction::put(&pair, "p"), &[], 3),
        operation(Api::Rest, 400, Transaction::put(&object, "o"), &[], 4),
    ];
    let kept = LeaseEvent::Kept { called: 0, returned: 10, ttl_seconds: 3 };
    let lease = LeaseLog { id: 1, key: format!("{LEASED}1"), events: vec![kept], left_over: false };
    let listed =
        InformerRecord::Listed { at: 500, member: 0, revision: 4, objects: vec![(object.clone(), "o".to_owned(), 4)] };
    let informer = InformerLog { informer: "i".to_owned(), complete_to: 4, records: vec![listed] };
    let hashes = (0..MEMBERS).map(|member| (member, "h".to_owned())).collect();
    let keys = vec![(register.clone(), "x".to_owned(), 2), (pair.clone(), "p".to_owned(), 3)];
    let ending = Ending {
        problem: None,
        last: 3,
        last_object: 4,
        hashes: vec![Round { at: 900, of: "HashKV".to_owned(), revision: 4, hashes }],
        keys: (0..MEMBERS).map(|member| (member, keys.clone())).collect(),
        objects: (0..MEMBERS).map(|member| (member, vec![(object.clone(), "o".to_owned(), 4)])).collect(),
        counter: Some(1),
    };
    let increment =
        Increment { client: "n".to_owned(), member: 0, called: 600, returned: 610, to: 1, counted: Counted::Yes };
    Recorded {
        history: History {
            operations,
            watches: vec![watch("w", &[put(2, &register, "x", 1, 2), put(3, &pair, "p", 1, 3)])],
            informers: vec![informer],
            leases: vec![lease],
            increments: vec![increment],
            requests: workload::requests(),
            samples: Vec::new(),
        },
        account: Account {
            changes: vec![Change { at: 0, service: ServiceLevel::Required }],
            starts: vec![workload::start(0), workload::start(1)],
            machines: vec![MachineSeen { at: 700, worker: 0, containers: workload::settled().machines.swap_remove(0) }],
            ..Account::default()
        },
        leaders: vec![Led { at: 0, member: 0, term: 1 }, Led { at: 50, member: 1, term: 2 }],
        schedule: Vec::new(),
        left_out: Vec::new(),
        healed: SECOND,
        hashes: Vec::new(),
        compacted: 0,
        ending,
        workers: 2,
        settled: Some(workload::settled()),
    }
}

fn violated(recorded: &Recorded, panics: &[&str]) -> BTreeSet<String> {
    let panics = panics.iter().map(|text| (*text).to_owned()).collect();
    let checks = judge(recorded, MEMBERS, 10 * SECOND, panics);
    checks.into_iter().filter(|check| check.status == Status::Violated).map(|check| check.name).collect()
}

/// Names of the violated checks of a run with a planted fault.
fn planted(plant: impl FnOnce(&mut Recorded)) -> BTreeSet<String> {
    let mut recorded = truth();
    plant(&mut recorded);
    violated(&recorded, &[])
}

fn injected(kind: Kind, effect: Effect, from: Micros, to: Micros) -> Injected {
    Injected { from, to, text: effect.to_string(), effect, kind }
}

fn death(at: Micros, is_wanted: bool) -> Death {
    Death { at, member: 1, status: "exit code 1".to_owned(), is_wanted, said: String::new() }
}

#[test]
fn a_correct_run_passes_every_check() {
    let checks = judge(&truth(), MEMBERS, 10 * SECOND, Vec::new());
    assert!(checks.iter().all(|check| check.status == Status::Passed), "{checks:#?}");
}

/// Proves that every check of a report can fail.
#[test]
fn every_check_fails_when_it_should() {
    let stale = |object: &str, at| operation(Api::Etcd, at, Transaction::get(object), &[(object, "never")], 4);
    let mut found = BTreeSet::new();
    let mut add = |name: &str, planted: BTreeSet<String>| {
        assert!(planted.contains(name), "{name}: {planted:?}");
        found.insert(name.to_owned());
    };
    let operations = |recorded: &mut Recorded, operation| recorded.history.operations.push(operation);
    add("registers are linearizable", planted(|run| operations(run, stale(&register(), 600))));
    add("transactions over several keys are linearizable", planted(|run| operations(run, stale(&pair(), 600))));
    let object = format!("{NAME}1");
    let stale_object = operation(Api::Rest, 600, Transaction::get(&object), &[(&object, "never")], 4);
    add("ConfigMaps over REST are linearizable", planted(|run| operations(run, stale_object)));
    add("a connected majority accepts writes", planted(|run| run.healed = 60 * SECOND));
    add("leases expire, and not before their time", planted(|run| run.history.leases[0].left_over = true));
    let lost = operation(Api::Etcd, 700, Transaction::put("chaos/reg/2", "lost"), &[], 5);
    add("no acknowledged write is missing, and clients wrote every change", planted(|run| operations(run, lost)));
    add("every read returns the state at its revision", planted(|run| operations(run, stale(&register(), 600))));
    let old = operation(Api::Etcd, 800, Transaction::get("chaos/reg/3"), &[], 1);
    add("revisions follow real time over all keys", planted(|run| operations(run, old)));
    let names: BTreeSet<String> =
        judge(&truth(), MEMBERS, 10 * SECOND, Vec::new()).into_iter().map(|check| check.name).collect();
    let watches = names.iter().find(|name| name.contains("watch")).expect("a check of watches").clone();
    add(&watches, planted(|run| run.history.watches[0].complete_to = 2));
    let informers = names.iter().find(|name| name.contains("informer")).expect("a check of informers").clone();
    add(&informers, planted(|run| run.history.informers[0].complete_to = 3));
    add(
        "an increment over REST counts once, and is acknowledged to its own client",
        planted(|run| run.ending.counter = Some(0)),
    );
    add("all members have the same state at the end", planted(|run| run.ending.keys[2].1[0].1 = "other".to_owned()));
    add(
        "equal revisions have equal hashes on all members",
        planted(|run| run.ending.hashes[0].hashes[1].1 = "g".into()),
    );
    add("at most one member leads in a term", planted(|run| run.leaders[1].term = 1));
    add("members end only when a fault requires it", planted(|run| run.account.deaths.push(death(5, false))));
    add("no process panicked", violated(&truth(), &["m1.log: panicked at"]));
    let settled = |plant: fn(&mut Settled)| planted(|run| run.settled.iter_mut().for_each(plant));
    let agent =
        AgentDeath { at: 5, worker: 0, status: "exit code 1".to_owned(), is_wanted: false, said: String::new() };
    add("agents end only when a fault requires it", planted(|run| run.account.agent_deaths.push(agent)));
    add("every Deployment reaches its desired state", settled(|s| s.api.pods[0].is_ready = false));
    add("machines run exactly the pods of the API", settled(|s| s.machines[0][0].uid = "other".to_owned()));
    let again = Start { id: "c9".to_owned(), ..workload::start(1) };
    add("no container is started again unless something ended it", planted(|run| run.account.starts.push(again)));
    add(
        "a restarted agent adopts its running containers",
        settled(|s| s.machines[0][1].started_at = "2026-11-30T10:30:00Z".to_owned()),
    );
    add("statuses agree with the running containers", settled(|s| s.api.pods[0].containers[0].restarts = 3));
    add("endpoints name the ready pods, and no pod that is gone", settled(|s| drop(s.api.endpoints.pop())));
    assert_eq!(found, names);
    // This check exists only when it fails.
    let name = "the quorum serves again after everything is healed";
    assert!(planted(|run| run.ending.problem = Some("m1 does not".to_owned())).contains(name));
}

#[test]
fn members_with_different_state_are_found() {
    let name = "all members have the same state at the end";
    let members = |change: fn(&mut Vec<Shown>)| {
        planted(|run| run.ending.keys.iter_mut().for_each(|(_, shown)| change(shown))).contains(name)
    };
    assert!(members(|shown| shown.clear()), "a watched key is missing on all members");
    assert!(members(|shown| shown.push(("chaos/reg/9".to_owned(), "y".to_owned(), 3))), "no event explains the key");
    assert!(members(|shown| shown[0].2 = 3), "the revision differs");
    assert!(planted(|run| run.ending.objects[1].1.clear()).contains(name), "an object is missing on one member");
}

#[test]
fn a_member_must_end_when_its_fsync_fails() {
    let name = "members end only when a fault requires it";
    let failing = || injected(Kind::FailedSync, Effect::FailingSync(1), 0, 5 * SECOND);
    let with = |deaths: Vec<Death>, other: Option<Injected>| {
        planted(|run| {
            run.account.injected = other.into_iter().chain([failing()]).collect();
            run.account.deaths = deaths;
        })
        .contains(name)
    };
    assert!(with(Vec::new(), None), "the member did not end");
    assert!(!with(vec![death(SECOND, true)], None), "the member ended in time");
    assert!(with(vec![death(7 * SECOND, true)], None), "the member ended too late");
    let killed = injected(Kind::Kill, Effect::Down(vec![1]), SECOND, 3 * SECOND);
    assert!(!with(Vec::new(), Some(killed)), "the member was killed meanwhile");
}

#[test]
fn a_full_disk_excuses_an_end_only_while_it_is_full() {
    let name = "members end only when a fault requires it";
    let with = |at: Micros, said: &str| {
        planted(|run| {
            run.account.injected = vec![injected(Kind::FullDisk, Effect::FullDisk(1), SECOND, 3 * SECOND)];
            run.account.deaths = vec![Death { said: said.to_owned(), ..death(at, false) }];
        })
        .contains(name)
    };
    assert!(!with(2 * SECOND, "error: No space left on device (os error 28)"));
    assert!(with(2 * SECOND, "error: the log is damaged"));
    assert!(with(60 * SECOND, "error: No space left on device (os error 28)"), "the disk had space for a long time");
}

#[test]
fn an_end_is_excused_shortly_after_its_fault() {
    let name = "members end only when a fault requires it";
    let with = |at: Micros, said: &str| {
        planted(|run| {
            run.account.injected = vec![injected(Kind::FailedSync, Effect::FailingSync(1), SECOND, SECOND + 90_000)];
            run.account.deaths = vec![Death { said: said.to_owned(), ..death(at, false) }];
        })
        .contains(name)
    };
    assert!(!with(SECOND + 150_000, "error=Input/output error (os error 5)"));
    assert!(!with(3 * SECOND, "error=Input/output error (os error 5)"), "a background sync failed");
    assert!(with(SECOND + 150_000, "error: the log is damaged"));
    assert!(with(5 * SECOND, "error=Input/output error (os error 5)"), "the disk was healthy for a long time");
}

#[test]
fn a_run_without_workers_has_no_checks_of_workers() {
    let mut recorded = truth();
    (recorded.workers, recorded.settled) = (0, None);
    let checks = judge(&recorded, MEMBERS, 10 * SECOND, Vec::new());
    assert!(checks.iter().all(|check| !check.name.contains("agent") && !check.name.contains("Deployment")));
    recorded.workers = 2;
    let checks = judge(&recorded, MEMBERS, 10 * SECOND, Vec::new());
    assert!(checks.iter().any(|check| check.status == Status::Undecided), "{checks:#?}");
}
