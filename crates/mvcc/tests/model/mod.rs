//! A naive model of the state machine that keeps a full map for every revision. It is slow and obvious, and shares no
//! code or lookup strategy with the real one.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{
    Applied, Command, CommandError, Compare, CompareOperator, CompareTarget, Event, KeyRange, KeyValue, LeaseId, Op,
    OpResponse, Outcome, Previous, RangeRequest, RangeResponse, Reply, SortTarget, Txn, TxnResponse,
};

type Map = BTreeMap<Bytes, KeyValue>;

pub struct Model {
    /// The state at each revision. The empty store is at revision 1.
    snapshots: Vec<Map>,
    pub events: Vec<Event>,
    leases: BTreeMap<LeaseId, (u64, u64)>,
    pub compacted: Revision,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            snapshots: vec![Map::new(), Map::new()],
            events: Vec::new(),
            leases: BTreeMap::new(),
            compacted: Revision::ZERO,
        }
    }
}

impl Model {
    pub fn revision(&self) -> Revision {
        Revision(self.snapshots.len() as u64 - 1)
    }

    pub fn leases(&self) -> Vec<(LeaseId, u64, u64)> {
        self.leases.iter().map(|(&id, &(ttl, generation))| (id, ttl, generation)).collect()
    }

    pub fn snapshot(&self, at: Revision) -> &Map {
        &self.snapshots[at.0 as usize]
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, CommandError> {
        self.check_revision(request.revision)?;
        let at = if request.revision.is_zero() { self.revision() } else { request.revision };
        Ok(range(self.snapshot(at), request, self.revision()))
    }

    /// The events that a watcher receives if it starts now.
    pub fn events_since(&self, after: Revision, range: &KeyRange) -> Vec<Event> {
        let wanted = |event: &&Event| event.kv().mod_revision > after && range.contains(&event.kv().key);
        self.events.iter().filter(wanted).map(|event| self.without_compacted(event)).collect()
    }

    fn without_compacted(&self, event: &Event) -> Event {
        let mut event = event.clone();
        match &mut event {
            Event::Put { kv, prev } | Event::Delete { kv, prev } if kv.mod_revision <= self.compacted => {
                *prev = Previous::None
            }
            _ => {}
        }
        event
    }

    fn check_revision(&self, requested: Revision) -> Result<(), CommandError> {
        if requested > self.revision() {
            return Err(CommandError::FutureRevision { requested, current: self.revision() });
        }
        if requested > Revision::ZERO && requested < self.compacted {
            return Err(CommandError::Compacted { requested, compacted: self.compacted });
        }
        Ok(())
    }

    pub fn apply(&mut self, command: &Command) -> Applied {
        let mut work = Work {
            map: self.snapshots.last().expect("never empty").clone(),
            revision: Revision(self.snapshots.len() as u64),
            events: Vec::new(),
        };
        let outcome = self.outcome(command, &mut work);
        if !work.events.is_empty() {
            self.snapshots.push(work.map);
            self.events.extend(work.events.iter().cloned());
        }
        Applied { reply: Reply { revision: self.revision(), outcome }, events: work.events }
    }

    fn outcome(&mut self, command: &Command, work: &mut Work) -> Result<Outcome, CommandError> {
        match command {
            Command::RaiseVersion { version } => Ok(Outcome::RaiseVersion { version: *version }),
            Command::Txn(txn) | Command::TracedTxn { txn, .. } => {
                check_form(&txn.success)?;
                check_form(&txn.failure)?;
                check_writes(&txn.success)?;
                check_writes(&txn.failure)?;
                let before = work.map.clone();
                self.check_state(txn, &before)?;
                Ok(Outcome::Txn(self.run(txn, &before, work)))
            }
            Command::Compact { revision: requested } => {
                if *requested > self.revision() {
                    return Err(CommandError::FutureRevision { requested: *requested, current: self.revision() });
                }
                if *requested <= self.compacted {
                    return Err(CommandError::Compacted { requested: *requested, compacted: self.compacted });
                }
                self.compacted = *requested;
                Ok(Outcome::Compact)
            }
            Command::LeaseGrant { id, ttl_seconds } => {
                if self.leases.contains_key(id) {
                    return Err(CommandError::LeaseExists(*id));
                }
                self.leases.insert(*id, (*ttl_seconds, 1));
                Ok(Outcome::LeaseGrant { id: *id, ttl_seconds: *ttl_seconds })
            }
            Command::LeaseKeepAlive { id } => {
                let (ttl_seconds, generation) = self.leases.get_mut(id).ok_or(CommandError::LeaseNotFound(*id))?;
                *generation += 1;
                Ok(Outcome::LeaseKeepAlive { id: *id, ttl_seconds: *ttl_seconds })
            }
            Command::LeaseRevoke { id, generation } => {
                let (_, current) = *self.leases.get(id).ok_or(CommandError::LeaseNotFound(*id))?;
                if generation.is_some_and(|generation| generation != current) {
                    return Ok(Outcome::LeaseRevoke { revoked: false });
                }
                let keys: Vec<_> = work.map.values().filter(|kv| kv.lease == *id).map(|kv| kv.key.clone()).collect();
                for key in keys {
                    work.delete(&key);
                }
                self.leases.remove(id);
                Ok(Outcome::LeaseRevoke { revoked: true })
            }
        }
    }

    fn check_state(&self, txn: &Txn, before: &Map) -> Result<(), CommandError> {
        for op in chosen(txn, before) {
            match op {
                Op::Range(request) => self.check_revision(request.revision)?,
                Op::Put(put) => {
                    if put.lease != LeaseId::NONE && !self.leases.contains_key(&put.lease) {
                        return Err(CommandError::LeaseNotFound(put.lease));
                    }
                    if (put.ignore_lease || put.ignore_value) && !before.contains_key(&put.key) {
                        return Err(CommandError::KeyNotFound);
                    }
                }
                Op::Delete(_) => {}
                Op::Txn(txn) => self.check_state(txn, before)?,
            }
        }
        Ok(())
    }

    fn run(&self, txn: &Txn, before: &Map, work: &mut Work) -> TxnResponse {
        let run = |op: &Op| match op {
            Op::Range(request) => {
                let newest = if work.events.is_empty() { self.revision() } else { work.revision };
                let map = if request.revision.is_zero() { &work.map } else { self.snapshot(request.revision) };
                OpResponse::Range(range(map, request, newest))
            }
            Op::Put(put) => {
                let old = work.map.get(&put.key).cloned();
                let kv = KeyValue {
                    key: put.key.clone(),
                    value: if put.ignore_value { old.clone().expect("checked").value } else { put.value.clone() },
                    create_revision: old.as_ref().map_or(work.revision, |old| old.create_revision),
                    mod_revision: work.revision,
                    version: old.as_ref().map_or(0, |old| old.version) + 1,
                    lease: if put.ignore_lease { old.clone().expect("checked").lease } else { put.lease },
                };
                work.map.insert(kv.key.clone(), kv.clone());
                work.events.push(Event::Put { kv, prev: old.clone().into() });
                OpResponse::Put { prev: if put.prev_kv { old } else { None } }
            }
            Op::Delete(delete) => {
                let keys: Vec<_> = work.map.keys().filter(|key| delete.range.contains(key)).cloned().collect();
                let prev: Vec<_> = keys.iter().map(|key| work.delete(key)).collect();
                OpResponse::Delete { deleted: keys.len() as u64, prev: if delete.prev_kv { prev } else { Vec::new() } }
            }
            Op::Txn(txn) => OpResponse::Txn(self.run(txn, before, work)),
        };
        TxnResponse { succeeded: holds(txn, before), responses: chosen(txn, before).iter().map(run).collect() }
    }
}

struct Work {
    map: Map,
    revision: Revision,
    events: Vec<Event>,
}

impl Work {
    fn delete(&mut self, key: &Bytes) -> KeyValue {
        let prev = self.map.remove(key).expect("it was found");
        let kv = KeyValue { key: key.clone(), mod_revision: self.revision, ..KeyValue::default() };
        self.events.push(Event::Delete { kv, prev: Previous::Read(prev.clone()) });
        prev
    }
}

fn range(map: &Map, request: &RangeRequest, revision: Revision) -> RangeResponse {
    let in_range: Vec<_> = map.values().filter(|kv| request.range.contains(&kv.key)).cloned().collect();
    let count = in_range.len() as u64;
    if request.count_only {
        return RangeResponse { kvs: Vec::new(), more: false, count, revision };
    }
    let within = |value: Revision, min: Revision, max: Revision| value >= min && (max.is_zero() || value <= max);
    let mut kvs = in_range;
    kvs.retain(|kv| within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision));
    kvs.retain(|kv| within(kv.create_revision, request.min_create_revision, request.max_create_revision));
    if let Some(sort) = request.sort {
        kvs.sort_by(|a, b| match sort.by {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortTarget::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        });
        if sort.descending {
            kvs.reverse();
        }
    }
    let more = request.limit > 0 && kvs.len() as u64 > request.limit;
    if more {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { kvs, more, count, revision }
}

fn chosen<'a>(txn: &'a Txn, before: &Map) -> &'a [Op] {
    if holds(txn, before) { &txn.success } else { &txn.failure }
}

fn holds(txn: &Txn, before: &Map) -> bool {
    txn.compare.iter().all(|compare| {
        let kvs: Vec<_> = before.values().filter(|kv| compare.range.contains(&kv.key)).collect();
        match (&compare.target, kvs.is_empty()) {
            (CompareTarget::Value(_), true) => false,
            (_, true) => compare_one(compare, &KeyValue::default()),
            (_, false) => kvs.iter().all(|kv| compare_one(compare, kv)),
        }
    })
}

fn compare_one(compare: &Compare, kv: &KeyValue) -> bool {
    fn test<T: Ord>(operator: CompareOperator, actual: &T, given: &T) -> bool {
        match operator {
            CompareOperator::Equal => actual == given,
            CompareOperator::NotEqual => actual != given,
            CompareOperator::Greater => actual > given,
            CompareOperator::Less => actual < given,
        }
    }
    match &compare.target {
        CompareTarget::Version(given) => test(compare.operator, &kv.version, given),
        CompareTarget::CreateRevision(given) => test(compare.operator, &kv.create_revision, given),
        CompareTarget::ModRevision(given) => test(compare.operator, &kv.mod_revision, given),
        CompareTarget::Value(given) => test(compare.operator, &kv.value, given),
        CompareTarget::Lease(given) => test(compare.operator, &kv.lease, given),
    }
}

fn check_form(ops: &[Op]) -> Result<(), CommandError> {
    for op in ops {
        match op {
            Op::Put(put) if put.key.is_empty() => return Err(CommandError::EmptyKey),
            Op::Put(put) if put.ignore_value && !put.value.is_empty() => return Err(CommandError::ValueProvided),
            Op::Put(put) if put.ignore_lease && put.lease != LeaseId::NONE => return Err(CommandError::ValueProvided),
            Op::Txn(txn) => {
                check_form(&txn.success)?;
                check_form(&txn.failure)?;
            }
            _ => {}
        }
    }
    Ok(())
}

enum Write {
    Put(Bytes),
    Delete(KeyRange),
}

/// Checks every pair of operations that may both run for writes to the same key.
fn check_writes(ops: &[Op]) -> Result<Vec<Write>, CommandError> {
    let mut all: Vec<Write> = Vec::new();
    for op in ops {
        let writes = match op {
            Op::Range(_) => Vec::new(),
            Op::Put(put) => vec![Write::Put(put.key.clone())],
            Op::Delete(delete) => vec![Write::Delete(delete.range.clone())],
            Op::Txn(txn) => check_writes(&txn.success)?.into_iter().chain(check_writes(&txn.failure)?).collect(),
        };
        let clash = |a: &Write, b: &Write| match (a, b) {
            (Write::Put(a), Write::Put(b)) => a == b,
            (Write::Put(key), Write::Delete(range)) | (Write::Delete(range), Write::Put(key)) => range.contains(key),
            (Write::Delete(_), Write::Delete(_)) => false,
        };
        if all.iter().any(|a| writes.iter().any(|b| clash(a, b))) {
            return Err(CommandError::DuplicateKey);
        }
        all.extend(writes);
    }
    Ok(all)
}
