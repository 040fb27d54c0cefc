//! Tables of single commands and their effects.

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Applied, Command, CommandError, CommandVersion, Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange,
    LeaseId, MemoryBackend, Op, OpResponse, Outcome, PutRequest, RangeRequest, ReadError, ReadTxn, State, Txn,
    TxnResponse, next_key,
};

fn new_state() -> State<MemoryBackend> {
    State::open(MemoryBackend::default()).expect("an empty backend opens")
}

fn apply(state: &State<MemoryBackend>, command: Command) -> Applied {
    let mut applier = state.applier();
    let applied = applier.apply(&command).expect("memory does not fail");
    state.commit(applier.finish()).expect("memory does not fail");
    applied
}

fn txn(success: Vec<Op>) -> Txn {
    Txn { success, ..Txn::default() }
}

fn run(state: &State<MemoryBackend>, ops: Vec<Op>) -> Result<TxnResponse, CommandError> {
    apply(state, Command::Txn(txn(ops))).reply.outcome.map(|outcome| match outcome {
        Outcome::Txn(response) => response,
        other => panic!("a transaction was answered with {other:?}"),
    })
}

fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

/// Puts the same value under every `step`th of the keys `/k/0…0` to `/k/9…9`, whose numbers have this many digits.
fn puts(value: &'static str, keys: usize, step: usize, digits: usize) -> Vec<Op> {
    let key = |i| format!("/k/{i:0digits$}").into();
    let put = |i| Op::Put(PutRequest { key: key(i), value: value.into(), ..PutRequest::default() });
    (0..keys).step_by(step).map(put).collect()
}

fn delete(range: KeyRange) -> Op {
    Op::Delete(DeleteRequest { range, prev_kv: false })
}

fn nested(success: Vec<Op>, failure: Vec<Op>) -> Op {
    Op::Txn(Box::new(Txn { compare: Vec::new(), success, failure }))
}

fn values(state: &State<MemoryBackend>, request: &RangeRequest) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    Ok(state.range(request)?.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect())
}

#[test]
fn a_transaction_writes_a_key_at_most_once() {
    let allowed = |ops: Vec<Op>| run(&new_state(), ops).is_ok();
    let (a, b) = (|| put("a", "1"), || put("b", "1"));
    let delete_a = || delete(KeyRange::key("a"));
    let delete_all = || delete(KeyRange::from(""));

    assert!(allowed(vec![a(), b()]));
    assert!(!allowed(vec![a(), a()]));
    assert!(!allowed(vec![a(), delete_a()]));
    assert!(!allowed(vec![delete_all(), b()]));
    assert!(allowed(vec![delete_a(), delete_all(), delete_a()]), "deletes may overlap");
    assert!(allowed(vec![nested(vec![a()], vec![a()])]), "only one of the two runs");
    assert!(allowed(vec![nested(vec![a()], vec![delete_a()])]));
    assert!(!allowed(vec![a(), nested(vec![], vec![a()])]), "the nested put may run");
    assert!(!allowed(vec![nested(vec![delete_a()], vec![]), a()]));
    assert!(!allowed(vec![nested(vec![a()], vec![]), nested(vec![delete_all()], vec![])]));
    assert!(!allowed(vec![nested(vec![a(), nested(vec![a()], vec![])], vec![])]));
    assert!(allowed(vec![nested(vec![nested(vec![a()], vec![b()])], vec![b()])]));
}

#[test]
fn refused_commands_change_nothing() {
    let state = new_state();
    run(&state, vec![put("a", "1")]).expect("a valid command");
    let with = |change: fn(&mut PutRequest)| {
        let mut request = PutRequest { key: "b".into(), ..PutRequest::default() };
        change(&mut request);
        Op::Put(request)
    };
    let future = CommandError::FutureRevision { requested: Revision(3), current: Revision(2) };
    let table: Vec<(Op, CommandError)> = vec![
        (with(|put| put.key = Bytes::new()), CommandError::EmptyKey),
        (with(|put| put.lease = LeaseId(9)), CommandError::LeaseNotFound(LeaseId(9))),
        (with(|put| put.ignore_value = true), CommandError::KeyNotFound),
        (with(|put| put.ignore_lease = true), CommandError::KeyNotFound),
        (
            with(|put| {
                put.ignore_value = true;
                put.value = "x".into();
            }),
            CommandError::ValueProvided,
        ),
        (
            with(|put| {
                put.ignore_lease = true;
                put.lease = LeaseId(9);
            }),
            CommandError::ValueProvided,
        ),
        (Op::Range(RangeRequest::new(KeyRange::key("a")).at(Revision(3))), future),
        (nested(vec![put("a", "3"), put("a", "4")], vec![]), CommandError::DuplicateKey),
    ];
    let before = state.backend().dump();
    for (op, error) in table {
        // The refused operation follows a valid write in the same transaction.
        let applied = apply(&state, Command::Txn(txn(vec![put("z", "2"), op.clone()])));
        assert_eq!(applied.reply.outcome, Err(error), "{op:?}");
        assert_eq!((applied.reply.revision, applied.events.len()), (Revision(2), 0));
    }
    assert_eq!(state.backend().dump(), before);
    assert!(state.matches_backend().expect("memory does not fail"));
}

#[test]
fn nested_comparisons_see_the_state_before_the_transaction() {
    let state = new_state();
    let exists =
        Compare { range: KeyRange::key("a"), target: CompareTarget::Version(0), operator: CompareOperator::Greater };
    let inner = Txn { compare: vec![exists], success: vec![put("b", "seen")], failure: vec![put("b", "unseen")] };
    let read = Op::Range(RangeRequest::new(KeyRange::from("")));
    let response = run(&state, vec![put("a", "1"), Op::Txn(Box::new(inner)), read]).expect("a valid command");
    let OpResponse::Txn(inner) = &response.responses[1] else { panic!("{response:?}") };
    assert!(!inner.succeeded);
    let OpResponse::Range(range) = &response.responses[2] else { panic!("{response:?}") };
    assert_eq!(range.kvs.iter().map(|kv| kv.value.as_ref()).collect::<Vec<_>>(), [&b"1"[..], b"unseen"]);
    assert!(range.kvs.iter().all(|kv| kv.mod_revision == Revision(2)), "one revision for all");
    assert_eq!(range.revision, Revision(2));
}

#[test]
fn comparing_the_value_of_an_absent_key_fails() {
    let holds = |state: &State<MemoryBackend>, range: KeyRange, target, operator| {
        let compare = vec![Compare { range, target, operator }];
        let applied = apply(state, Command::Txn(Txn { compare, ..Txn::default() }));
        matches!(applied.reply.outcome, Ok(Outcome::Txn(TxnResponse { succeeded: true, .. })))
    };
    let state = new_state();
    let nothing = || CompareTarget::Value(Bytes::new());
    assert!(!holds(&state, KeyRange::key("a"), nothing(), CompareOperator::Equal));
    assert!(!holds(&state, KeyRange::key("a"), nothing(), CompareOperator::NotEqual));
    assert!(holds(&state, KeyRange::key("a"), CompareTarget::ModRevision(Revision::ZERO), CompareOperator::Equal));
    assert!(holds(&state, KeyRange::prefix("a"), CompareTarget::Lease(LeaseId::NONE), CompareOperator::Equal));
    run(&state, vec![put("a1", "x"), put("a2", "y")]).expect("a valid command");
    let x = || CompareTarget::Value("x".into());
    assert!(holds(&state, KeyRange::key("a1"), x(), CompareOperator::Equal));
    assert!(!holds(&state, KeyRange::prefix("a"), x(), CompareOperator::Equal), "every key of the range");
    assert_eq!(state.revision(), Revision(2), "a read does not raise the revision");
}

#[test]
fn an_expiry_after_a_keep_alive_does_nothing() {
    let state = new_state();
    let id = LeaseId(5);
    let outcome = |command| apply(&state, command).reply.outcome;
    assert!(outcome(Command::LeaseGrant { id, ttl_seconds: 10 }).is_ok());
    assert_eq!(outcome(Command::LeaseGrant { id, ttl_seconds: 1 }), Err(CommandError::LeaseExists(id)));
    let leased = PutRequest { key: "k".into(), lease: id, ..PutRequest::default() };
    run(&state, vec![Op::Put(leased)]).expect("a valid command");
    let seen = state.lease(id).expect("it exists").generation;
    assert_eq!(outcome(Command::LeaseKeepAlive { id }), Ok(Outcome::LeaseKeepAlive { id, ttl_seconds: 10 }));
    let expire = |generation| Command::LeaseRevoke { id, generation: Some(generation) };
    assert_eq!(outcome(expire(seen)), Ok(Outcome::LeaseRevoke { revoked: false }));
    assert_eq!(state.lease_keys(id), [Bytes::from("k")]);
    assert_eq!(state.revision(), Revision(2));

    let seen = state.lease(id).expect("it exists").generation;
    let applied = apply(&state, expire(seen));
    assert_eq!(applied.reply.outcome, Ok(Outcome::LeaseRevoke { revoked: true }));
    assert_eq!((applied.reply.revision, applied.events.len()), (Revision(3), 1));
    assert_eq!(state.leases(), []);
    assert_eq!(outcome(expire(seen)), Err(CommandError::LeaseNotFound(id)));
    assert_eq!(outcome(Command::LeaseKeepAlive { id }), Err(CommandError::LeaseNotFound(id)));
}

#[test]
fn compacted_revisions_cannot_be_read() {
    let state = new_state();
    for value in ["1", "2", "3"] {
        run(&state, vec![put("a", value)]).expect("a valid command");
    }
    run(&state, vec![delete(KeyRange::key("a")), put("b", "1")]).expect("a valid command");
    let all = RangeRequest::new(KeyRange::from(""));
    let at = |revision| values(&state, &all.clone().at(Revision(revision)));
    let compact = |revision| apply(&state, Command::Compact { revision: Revision(revision) }).reply.outcome;
    assert_eq!(compact(6), Err(CommandError::FutureRevision { requested: Revision(6), current: Revision(5) }));
    assert_eq!(compact(4), Ok(Outcome::Compact));
    assert_eq!(compact(4), Err(CommandError::Compacted { requested: Revision(4), compacted: Revision(4) }));
    // A read is refused as soon as the compaction is applied, even before the versions are deleted.
    let gone = |requested| {
        Err(ReadError::Refused(CommandError::Compacted { requested: Revision(requested), compacted: Revision(4) }))
    };
    assert_eq!(at(3), gone(3));
    assert_eq!(at(4), Ok(vec![("a".into(), "3".into())]));
    while state.compact_some(1).expect("memory does not fail") {}
    assert_eq!(at(3), gone(3));
    assert_eq!(at(4), Ok(vec![("a".into(), "3".into())]));
    assert_eq!(at(5), Ok(vec![("b".into(), "1".into())]));
    assert_eq!(state.key_count(), 2, "the tombstone of a is not compacted");

    assert_eq!(compact(5), Ok(Outcome::Compact));
    while state.compact_some(100).expect("memory does not fail") {}
    assert_eq!(at(5), Ok(vec![("b".into(), "1".into())]));
    assert_eq!(state.key_count(), 1);
    assert!(!state.compact_some(100).expect("memory does not fail"));
}

#[test]
fn long_ranges_are_read_in_parts() {
    let state = new_state();
    let keys = 10_000;
    let ops = |value, step| puts(value, keys, step, 5);
    run(&state, ops("old", 1)).expect("a valid command");
    run(&state, ops("new", 3)).expect("a valid command");
    run(&state, vec![delete(KeyRange { start: "/k/03".into(), end: Some("/k/07".into()) })]).expect("a valid command");
    let count = |revision, limit| {
        let request = RangeRequest::new(KeyRange::prefix("/k/")).at(Revision(revision)).limit(limit);
        let response = state.range(&request).expect("a retained revision");
        assert!(response.kvs.is_sorted_by(|a, b| a.key < b.key));
        let new = response.kvs.iter().filter(|kv| kv.value == "new").count();
        (response.count, response.kvs.len(), new, response.more)
    };
    assert_eq!(count(2, 0), (10_000, 10_000, 0, false));
    assert_eq!(count(3, 0), (10_000, 10_000, 3334, false));
    assert_eq!(count(4, 0), (6000, 6000, 2000, false));
    assert_eq!(count(4, 4500), (6000, 4500, 1500, true));
    assert_eq!(count(2, 4500), (10_000, 4500, 0, true));
    assert_eq!(count(2, 10_000), (10_000, 10_000, 0, false));

    let page = |page_bytes, limit, keys_only| {
        let request = RangeRequest::new(KeyRange::prefix("/k/")).at(Revision(4)).limit(limit);
        let page = state.range_page(&RangeRequest { keys_only, ..request }, page_bytes).expect("a retained revision");
        (page.kvs.len(), page.more)
    };
    // Each key has eight bytes and each value three.
    assert_eq!(page(1, 0, false), (1, true));
    assert_eq!(page(1101, 0, false), (101, true));
    assert_eq!(page(1101, 50, false), (50, true));
    assert_eq!(page(usize::MAX, 0, false), (4096, true), "the maximum number of keys in a page");
    assert_eq!(page(1, 0, true), (4096, true), "a page without values is not limited by bytes");

    // Followed to the end, pages are the range.
    for revision in [2, 3, 4] {
        let request = RangeRequest::new(KeyRange::prefix("/k/")).at(Revision(revision));
        let whole = state.range(&request).expect("a retained revision").kvs;
        for (page_bytes, limit) in [(11 * 300, 0), (11 * 256, 0), (usize::MAX, 257), (usize::MAX, 512), (usize::MAX, 0)]
        {
            let (mut found, mut range) = (Vec::new(), request.range.clone());
            loop {
                let rest = RangeRequest { range: range.clone(), ..request.clone() }.limit(limit);
                let page = state.range_page(&rest, page_bytes).expect("a retained revision");
                assert!(limit == 0 || page.kvs.len() as u64 <= limit, "{revision} {page_bytes} {limit}");
                found.extend(page.kvs);
                if !page.more {
                    break;
                }
                range.start = next_key(&found.last().expect("a page is not empty before the end").key);
            }
            assert!(found == whole, "{revision} {page_bytes} {limit}: {} of {}", found.len(), whole.len());
        }
    }
}

#[test]
fn a_page_of_the_past_keeps_to_its_limit() {
    let state = new_state();
    let ops = |value, step| puts(value, 8, step, 1);
    run(&state, ops("old", 1)).expect("a valid command");
    // Every second key has changed since.
    run(&state, ops("new", 2)).expect("a valid command");
    for limit in 1..8 {
        let request = RangeRequest::new(KeyRange::prefix("/k/")).at(Revision(2)).limit(limit);
        let page = state.range_page(&request, usize::MAX).expect("a retained revision");
        let whole = state.range(&request).expect("a retained revision");
        assert_eq!((page.kvs, page.more), (whole.kvs, true), "{limit}");
    }
}

#[test]
fn a_command_sees_earlier_commands_of_its_batch() {
    let state = new_state();
    let ops = |value, step| puts(value, 40, step, 2);
    run(&state, ops("2", 1)).expect("a valid command");
    let read = |revision| Op::Range(RangeRequest::new(KeyRange::prefix("/k/")).at(Revision(revision)));
    let mut applier = state.applier();
    let mut apply = |ops: Vec<Op>| {
        let reply = applier.apply(&Command::Txn(txn(ops))).expect("memory does not fail").reply;
        match reply.outcome.expect("a valid command") {
            Outcome::Txn(TxnResponse { responses, .. }) => responses,
            other => panic!("a transaction was answered with {other:?}"),
        }
    };
    let found = |response: &OpResponse| match response {
        OpResponse::Range(range) => range.kvs.iter().map(|kv| kv.value.clone()).collect::<Vec<_>>().concat(),
        other => panic!("a range was answered with {other:?}"),
    };
    apply(ops("3", 2));
    apply(ops("4", 4));
    // A read at revision 0 sees the transaction's own writes, which have no revision yet.
    let responses = apply([ops("5", 8), vec![read(0), read(4), read(3), read(2)]].concat());
    let newest = b"52324232".repeat(5);
    assert_eq!(found(&responses[5]), newest);
    assert_eq!(found(&responses[6]), b"4232".repeat(10));
    assert_eq!(found(&responses[7]), b"32".repeat(20));
    assert_eq!(found(&responses[8]), b"2".repeat(40));
    // Readers do not see the batch before it is published.
    let read_all = RangeRequest::new(KeyRange::prefix("/k/"));
    let before = state.range(&read_all).expect("a retained revision");
    assert!(before.kvs.iter().all(|kv| kv.value == "2" && kv.version == 1), "{before:?}");
    let future = CommandError::FutureRevision { requested: Revision(3), current: Revision(2) };
    assert_eq!(state.range(&read_all.clone().at(Revision(3))), Err(ReadError::Refused(future)));
    state.commit(applier.finish()).expect("memory does not fail");
    assert_eq!(
        values(&state, &read_all).expect("it exists").into_iter().flat_map(|kv| kv.1).collect::<Vec<_>>(),
        newest
    );
}

#[test]
fn a_read_only_transaction_gets_the_response_of_an_applied_one() {
    let state = new_state();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        run(&state, vec![put(key, value)]).expect("written");
    }
    run(&state, vec![delete(KeyRange::key("b"))]).expect("deleted");
    let range = |range| Op::Range(RangeRequest::new(range));
    let compare =
        |key: &'static str, target| Compare { range: KeyRange::key(key), target, operator: CompareOperator::Equal };
    let all = || range(KeyRange::from(""));
    let old = Op::Range(RangeRequest::new(KeyRange::key("b")).at(Revision(3)));
    let txns = [
        txn(vec![]),
        txn(vec![all(), range(KeyRange::key("b")), old.clone()]),
        Txn {
            compare: vec![compare("a", CompareTarget::Value("3".into())), compare("b", CompareTarget::Version(0))],
            success: vec![nested(vec![all()], vec![]), all()],
            failure: vec![old.clone()],
        },
        Txn { compare: vec![compare("a", CompareTarget::Version(1))], success: vec![all()], failure: vec![old] },
        txn(vec![Op::Range(RangeRequest::new(KeyRange::from("")).at(Revision(99)))]),
        txn(vec![Op::Range(RangeRequest::new(KeyRange::from("")).limit(1))]),
    ];
    for txn in txns {
        let read = ReadTxn::of(&txn).expect("it only reads");
        let found = match state.read_txn(&read) {
            Ok((revision, response)) => {
                assert_eq!(revision, state.revision());
                Ok(response)
            }
            Err(ReadError::Refused(refused)) => Err(refused),
            Err(error) => panic!("{error}"),
        };
        let before = state.revision();
        let applied = apply(&state, Command::Txn(txn.clone())).reply;
        assert_eq!(applied.revision, before, "nothing changes");
        assert_eq!(found.map(Outcome::Txn), applied.outcome, "{txn:?}");
    }
    for writes in [vec![put("a", "1")], vec![delete(KeyRange::key("a"))], vec![nested(vec![], vec![put("a", "1")])]] {
        assert!(ReadTxn::of(&txn(writes)).is_none());
    }
}

#[test]
fn a_read_plan_sees_one_revision_until_a_compaction_overtakes_it() {
    let state = new_state();
    run(&state, vec![put("a", "1"), put("b", "1")]).expect("written");
    let read = ReadTxn::of(&txn(vec![Op::Range(RangeRequest::new(KeyRange::from("")))])).expect("it only reads");
    let plan = state.plan(&read).expect("readable");
    run(&state, vec![put("a", "2"), put("c", "2")]).expect("written");
    let found = plan.ranges.iter().map(|range| state.range(range).expect("readable")).collect();
    let response = read.respond(&plan, found);
    let [OpResponse::Range(found)] = &response.responses[..] else { panic!("{response:?}") };
    assert_eq!((found.kvs.len(), found.count, &found.kvs[0].value[..]), (2, 2, &b"1"[..]));

    apply(&state, Command::Compact { revision: state.revision() }).reply.outcome.expect("compacted");
    let overtaken = state.range(&plan.ranges[0]).expect_err("it is compacted");
    assert!(plan.is_overtaken(&overtaken), "{overtaken}");
    let (_, response) = state.read_txn(&read).expect("it is planned anew");
    assert!(matches!(&response.responses[..], [OpResponse::Range(found)] if found.count == 3), "{response:?}");
}

#[test]
fn the_command_version_only_rises_and_is_persistent() {
    let state = new_state();
    assert_eq!(state.command_version(), CommandVersion::FIRST);
    for (raised, expected) in [(3, 3), (2, 3), (4, 4)] {
        let command = Command::RaiseVersion { version: CommandVersion(raised) };
        assert_eq!(command.version(), CommandVersion(2));
        let outcome = apply(&state, command).reply.outcome;
        assert_eq!(outcome, Ok(Outcome::RaiseVersion { version: CommandVersion(expected) }));
        assert_eq!(state.command_version(), CommandVersion(expected));
        assert!(state.matches_backend().expect("readable"));
    }
    assert_eq!(state.revision(), Revision::INITIAL, "no key has changed");
}
