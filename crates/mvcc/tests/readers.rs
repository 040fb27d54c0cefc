//! Readers that run concurrently with the writer and the deletion of compacted versions: each sees one whole revision.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Command, CommandError, DeleteRequest, KeyRange, MemoryBackend, Op, PutRequest, RangeRequest, ReadError, State, Txn,
};

const KEYS: u64 = 100;
const REVISIONS: u64 = 1500;

/// Writes every key with the revision as its value. Every tenth revision deletes the odd keys instead.
fn write(revision: u64) -> Command {
    let leaves_odd = revision.is_multiple_of(10);
    let put = |i: u64| Op::Put(PutRequest { key: key(i), value: revision.to_string().into(), ..PutRequest::default() });
    let delete = |i: u64| Op::Delete(DeleteRequest { range: KeyRange::key(key(i)), prev_kv: false });
    let op = |i: u64| if leaves_odd && i % 2 == 1 { delete(i) } else { put(i) };
    Command::Txn(Txn { success: (0..KEYS).map(op).collect(), ..Txn::default() })
}

fn key(i: u64) -> Bytes {
    format!("/k/{i:03}").into()
}

fn expected_count(revision: u64) -> u64 {
    if revision.is_multiple_of(10) { KEYS / 2 } else { KEYS }
}

fn check(state: &State<MemoryBackend>, at: Revision) {
    let request = RangeRequest::new(KeyRange::prefix("/k/")).at(at);
    let response = match state.range(&request) {
        Ok(response) => response,
        Err(ReadError::Refused(CommandError::Compacted { .. })) if at > Revision::ZERO => return,
        Err(error) => panic!("{error}"),
    };
    let Some(first) = response.kvs.first() else {
        assert!(at <= Revision::INITIAL, "nothing at {at}");
        return;
    };
    let revision = first.mod_revision;
    assert!(at == Revision::ZERO || revision == at, "{revision} at {at}");
    assert_eq!((response.count, response.kvs.len() as u64), (expected_count(revision.0), expected_count(revision.0)));
    for kv in &response.kvs {
        assert_eq!(kv.mod_revision, revision, "two revisions in one answer");
        assert_eq!(kv.value, revision.to_string());
    }
    // A page of events holds the whole revision.
    match state.events_since(Revision(revision.0 - 1), &KeyRange::prefix("/k/"), 1, true) {
        Ok(page) => assert_eq!((page.revision, page.events.len() as u64), (revision, KEYS)),
        Err(ReadError::Refused(CommandError::Compacted { .. })) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_reader_sees_one_revision() {
    let state = State::open(MemoryBackend::default()).expect("an empty backend opens");
    let done = AtomicBool::new(false);
    let running = || !done.load(Ordering::Acquire);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 2;
            while next <= REVISIONS {
                let mut applier = state.applier();
                for revision in next..next + 3 {
                    let applied = applier.apply(&write(revision)).expect("memory does not fail");
                    assert_eq!(applied.reply.revision, Revision(revision));
                }
                next += 3;
                if next.is_multiple_of(5) {
                    // The compacted revision follows closely behind the readers.
                    applier.apply(&Command::Compact { revision: Revision(next - 2) }).expect("memory does not fail");
                }
                state.commit(applier.finish()).expect("memory does not fail");
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while running() {
                state.compact_some(37).expect("memory does not fail");
            }
        });
        for back in 0..2 {
            let state = &state;
            scope.spawn(move || {
                while running() {
                    check(state, Revision::ZERO);
                    check(state, Revision(state.revision().0.saturating_sub(back).max(1)));
                }
            });
        }
    });
    while state.compact_some(1000).expect("memory does not fail") {}
    check(&state, Revision::ZERO);
    assert!(state.matches_backend().expect("memory does not fail"));
}
