//! Random histories that compare the real state machine with the naive model, for different groupings of the commands
//! into batches and at different stages of the deletion of compacted versions.

mod model;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_api::Revision;
use quorate_mvcc::{
    Applied, Command, CommandError, Compare, CompareOperator, CompareTarget, DeleteRequest, Event, KeyRange, KeyValue,
    LeaseId, MemoryBackend, Op, PutRequest, RangeRequest, ReadError, Sort, SortTarget, State, TraceId, Txn, next_key,
};

use model::Model;

/// Few keys, so that commands touch the same ones. They contain zero bytes and prefixes of each other, so that a wrong
/// escape would mix their rows.
const KEYS: &[&[u8]] = &[b"a", b"a\0", b"a\0\0", b"a\0\xff", b"ab", b"b", b"\0", b"\xff", b"\xff\xff", b"c/d"];

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![1 => Just(KEYS[0]), 3 => proptest::sample::select(KEYS)].prop_map(Bytes::from_static)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::key),
        1 => key().prop_map(KeyRange::prefix),
        1 => key().prop_map(KeyRange::from),
        1 => Just(KeyRange::from(Bytes::new())),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange { start, end: Some(end) }),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(0u8..3, 0..3).prop_map(Bytes::from)
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![3 => Just(0), 6 => 1u64..12, 1 => 12u64..40].prop_map(Revision)
}

fn lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![3 => Just(0), 1 => Just(-1), 1 => Just(1), 1 => Just(2)].prop_map(LeaseId)
}

fn lease_to_change() -> impl Strategy<Value = LeaseId> {
    proptest::sample::select(&[-1, 1, 2][..]).prop_map(LeaseId)
}

fn compare() -> impl Strategy<Value = Compare> {
    let operator = proptest::sample::select(
        &[CompareOperator::Equal, CompareOperator::NotEqual, CompareOperator::Greater, CompareOperator::Less][..],
    );
    let target = prop_oneof![
        (0u64..4).prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::CreateRevision),
        revision().prop_map(CompareTarget::ModRevision),
        value().prop_map(CompareTarget::Value),
        lease().prop_map(CompareTarget::Lease),
    ];
    (range(), target, operator).prop_map(|(range, target, operator)| Compare { range, target, operator })
}

fn sort() -> impl Strategy<Value = Sort> {
    let by = proptest::sample::select(
        &[SortTarget::Key, SortTarget::Version, SortTarget::CreateRevision, SortTarget::ModRevision, SortTarget::Value]
            [..],
    );
    (by, any::<bool>()).prop_map(|(by, descending)| Sort { by, descending })
}

fn bound() -> impl Strategy<Value = Revision> {
    prop_oneof![6 => Just(Revision::ZERO), 1 => revision()]
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let flags = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.2));
    let bounds = (bound(), bound(), bound(), bound());
    let sort = proptest::option::weighted(0.3, sort());
    let limit = prop_oneof![2 => Just(0u64), 1 => 1u64..5];
    (range(), revision(), limit, flags, sort, bounds).prop_map(
        |(range, revision, limit, (keys_only, count_only), sort, bounds)| RangeRequest {
            range,
            revision,
            limit,
            keys_only,
            count_only,
            sort,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        },
    )
}

fn put() -> impl Strategy<Value = PutRequest> {
    let rarely = || proptest::bool::weighted(0.15);
    (key(), value(), lease(), any::<bool>(), rarely(), rarely(), rarely()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease, is_wrong)| PutRequest {
            key: if is_wrong && !ignore_value { Bytes::new() } else { key },
            value: if ignore_value && !is_wrong { Bytes::new() } else { value },
            lease: if ignore_lease && !is_wrong { LeaseId::NONE } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        2 => range_request().prop_map(Op::Range),
        4 => put().prop_map(Op::Put),
        2 => (range(), any::<bool>()).prop_map(|(range, prev_kv)| Op::Delete(DeleteRequest { range, prev_kv })),
    ];
    leaf.prop_recursive(2, 8, 3, |op| {
        (vec(compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| Op::Txn(Box::new(Txn { compare, success, failure })))
    })
}

fn command() -> impl Strategy<Value = Command> {
    let txn = (vec(compare(), 0..3), vec(op(), 0..4), vec(op(), 0..3))
        .prop_map(|(compare, success, failure)| Command::Txn(Txn { compare, success, failure }));
    let single = op().prop_map(|op| Command::Txn(Txn { success: vec![op], ..Txn::default() }));
    let traced =
        op().prop_map(|op| Command::TracedTxn { trace: TraceId(1), txn: Txn { success: vec![op], ..Txn::default() } });
    prop_oneof![
        5 => txn,
        1 => traced,
        8 => single,
        1 => revision().prop_map(|revision| Command::Compact { revision }),
        2 => (lease_to_change(), 1u64..9).prop_map(|(id, ttl_seconds)| Command::LeaseGrant { id, ttl_seconds }),
        1 => lease_to_change().prop_map(|id| Command::LeaseKeepAlive { id }),
        1 => (lease_to_change(), proptest::option::of(1u64..3))
            .prop_map(|(id, generation)| Command::LeaseRevoke { id, generation }),
    ]
}

/// A batch, and the reads and the deletion that follow it.
#[derive(Clone, Debug)]
struct Step {
    commands: Vec<Command>,
    reads: Vec<RangeRequest>,
    replay: (Revision, KeyRange, usize),
    hash: Revision,
    /// Number of events to pass to `compact_some`.
    delete: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let replay = (revision(), range(), prop_oneof![Just(1usize), Just(300), Just(1 << 20)]);
    (vec(command(), 1..9), vec(range_request(), 0..4), replay, revision(), proptest::option::of(1usize..9))
        .prop_map(|(commands, reads, replay, hash, delete)| Step { commands, reads, replay, hash, delete })
}

fn new_state() -> State<MemoryBackend> {
    State::open(MemoryBackend::default()).expect("an empty backend opens")
}

fn apply(state: &State<MemoryBackend>, commands: &[Command]) -> Vec<Applied> {
    let mut applier = state.applier();
    let applied: Vec<Applied> =
        commands.iter().map(|command| applier.apply(command).expect("memory does not fail")).collect();
    state.commit(applier.finish()).expect("memory does not fail");
    // A previous version can be read until it is compacted.
    let read = |events: &[Event]| state.with_previous(events).expect("memory does not fail");
    applied.into_iter().map(|applied| Applied { events: read(&applied.events), ..applied }).collect()
}

fn replay(
    state: &State<MemoryBackend>,
    from: Revision,
    range: &KeyRange,
    max_bytes: usize,
) -> Result<Vec<Event>, ReadError> {
    let (mut after, mut events) = (from, Vec::new());
    loop {
        let page = state.events_since(after, range, max_bytes, true)?;
        assert!(page.events.iter().all(|event| event.kv().mod_revision > after));
        assert!(page.events.iter().all(|event| event.kv().mod_revision <= page.revision), "a part of a revision");
        events.extend(page.events);
        if page.revision >= page.newest {
            return Ok(events);
        }
        assert!(page.revision > after, "a page without progress");
        after = page.revision;
    }
}

/// Reads the keys of a range, up to the limit, in pages of a few bytes.
fn in_pages(state: &State<MemoryBackend>, mut request: RangeRequest) -> Result<Vec<KeyValue>, ReadError> {
    const PAGE_BYTES: usize = 4;
    let mut kvs = Vec::new();
    loop {
        let page = state.range_page(&request, PAGE_BYTES)?;
        let bytes = |kvs: &[KeyValue]| kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
        if let [before @ .., _] = &page.kvs[..] {
            assert!(request.keys_only || bytes(before) < PAGE_BYTES, "more than a page: {page:?}");
        }
        match page.kvs.last() {
            Some(last) => request.range.start = next_key(&last.key),
            None => assert!(!page.more, "a page without progress"),
        }
        let (found, limit) = (page.kvs.len() as u64, request.limit);
        assert!(limit == 0 || found <= limit, "more than {limit}: {page:?}");
        kvs.extend(page.kvs);
        if !page.more || found == limit {
            return Ok(kvs);
        }
        request.limit = limit.saturating_sub(found);
    }
}

fn check_step(state: &State<MemoryBackend>, model: &Model, step: &Step) {
    assert_eq!(state.revision(), model.revision());
    for request in &step.reads {
        let expected = model.range(request).map_err(ReadError::Refused);
        assert_eq!(state.range(request), expected, "{request:?}");
        if request.is_in_key_order() && !request.count_only {
            for limit in [0, 1, request.limit] {
                let some = RangeRequest { limit, ..request.clone() };
                let expected = model.range(&some).map(|found| found.kvs).map_err(ReadError::Refused);
                assert_eq!(in_pages(state, some), expected, "{request:?} in pages, {limit}");
            }
        }
    }
    let (after, range, max_bytes) = &step.replay;
    let expected = match model.compacted {
        compacted if after.0 + 1 < compacted.0 => {
            Err(ReadError::Refused(CommandError::Compacted { requested: *after, compacted }))
        }
        _ => Ok(model.events_since(*after, range)),
    };
    assert_eq!(replay(state, *after, range, *max_bytes), expected, "events after {after}");
    let leases: Vec<_> = state.leases().iter().map(|info| (info.id, info.ttl_seconds, info.generation)).collect();
    assert_eq!(leases, model.leases());
    for (id, _, _) in leases {
        let of_lease = |kv: &&KeyValue| kv.lease == id;
        let keys: Vec<_> =
            model.snapshot(model.revision()).values().filter(of_lease).map(|kv| kv.key.clone()).collect();
        assert_eq!(state.lease_keys(id), keys);
    }
}

fn finish_deletion(state: &State<MemoryBackend>) {
    while state.compact_some(3).expect("memory does not fail") {}
}

/// Returns `PROPTEST_CASES`, or 3000 when it is not set.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn histories_match_the_model(steps in vec(step(), 1..10)) {
        let (batched, single) = (new_state(), new_state());
        let mut model = Model::default();
        for step in &steps {
            let expected: Vec<_> = step.commands.iter().map(|command| model.apply(command)).collect();
            prop_assert_eq!(&apply(&batched, &step.commands), &expected);
            let one_by_one: Vec<_> =
                step.commands.iter().flat_map(|command| apply(&single, std::slice::from_ref(command))).collect();
            prop_assert_eq!(&one_by_one, &expected);

            check_step(&batched, &model, step);
            if let Some(events) = step.delete {
                batched.compact_some(events).expect("memory does not fail");
                check_step(&batched, &model, step);
            }
            check_step(&single, &model, step);
            // The first state has deleted compacted versions, the second has not.
            prop_assert_eq!(batched.hash_at(step.hash), single.hash_at(step.hash));
            prop_assert!(batched.matches_backend().expect("memory does not fail"));
        }
        finish_deletion(&batched);
        finish_deletion(&single);
        for step in &steps {
            check_step(&batched, &model, step);
        }
        prop_assert!(single.matches_backend().expect("memory does not fail"));
        for revision in model.compacted.0.max(1)..=model.revision().0 {
            let (_, hash) = batched.hash_at(Revision(revision)).expect("it is retained");
            let (_, other) = single.hash_at(Revision(revision)).expect("it is retained");
            prop_assert_eq!(hash, other);
        }
        // Both deletions leave the same rows: exactly those that can still be read.
        prop_assert_eq!(batched.backend().dump(), single.backend().dump());
        let live = model.snapshot(model.revision()).len();
        if model.compacted == model.revision() {
            prop_assert_eq!(batched.key_count(), live);
        }
    }
}
