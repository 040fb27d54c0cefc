//! [`Applier`] applies the commands of one batch. It is deterministic: the same commands on the same state give the
//! same replies, events and rows, however they are grouped into batches.

use bytes::Bytes;
use quorate_api::Revision;

use crate::backend::{Backend, BackendError, Table, WriteBatch};
use crate::command::{
    Command, CommandError, CommandVersion, DeleteRequest, Op, OpResponse, Outcome, PutRequest, RangeRequest, Reply,
    Txn, TxnResponse,
};
use crate::event::{Event, Previous};
use crate::index::Head;
use crate::kv::{KeyValue, LeaseId};
use crate::layout;
use crate::lease::LeaseInfo;
use crate::state::{Prepared, State};
use crate::txn::{self, Position};
use crate::view::{Pending, View};

/// Result of applying one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub reply: Reply,
    /// The command's events in sub-revision order, all at [`Reply::revision`].
    pub events: Vec<Event>,
}

/// A batch that is being applied; see [`State::applier`].
pub struct Applier<'a, B: Backend> {
    state: &'a State<B>,
    batch: B::Batch,
    position: Position,
    began_at: Position,
    pending: Pending,
    /// The events of the current command.
    events: Vec<Event>,
    row_key: Vec<u8>,
    row: Vec<u8>,
}

impl<'a, B: Backend> Applier<'a, B> {
    pub(crate) fn new(state: &'a State<B>) -> Self {
        let (revision, compacted) = state.position();
        let position = Position { revision, compacted };
        Applier {
            state,
            batch: state.backend.batch(),
            position,
            began_at: position,
            pending: Pending::default(),
            events: Vec::new(),
            row_key: Vec::new(),
            row: Vec::new(),
        }
    }

    /// Applies the next command, which sees the changes of the commands before it.
    ///
    /// # Errors
    /// When the backend cannot be read. The caller must then give up the batch.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, BackendError> {
        let outcome = match command {
            Command::Txn(txn) | Command::TracedTxn { txn, .. } => self.txn(txn)?.map(Outcome::Txn),
            Command::Compact { revision } => self.compact(*revision).map(|()| Outcome::Compact),
            Command::LeaseGrant { id, ttl_seconds } => self.grant(*id, *ttl_seconds),
            Command::LeaseKeepAlive { id } => self.keep_alive(*id),
            Command::LeaseRevoke { id, generation } => self.revoke(*id, *generation)?,
            Command::RaiseVersion { version } => Ok(self.raise_version(*version)),
        };
        if !self.events.is_empty() {
            self.position.revision = self.position.revision.next();
        }
        Ok(Applied {
            reply: Reply { revision: self.position.revision, outcome },
            events: std::mem::take(&mut self.events),
        })
    }

    /// Returns the changes of all applied commands.
    pub fn finish(mut self) -> Prepared<B::Batch> {
        let Position { revision, compacted } = self.position;
        if revision != self.began_at.revision {
            self.batch.put(Table::Meta, layout::META_REVISION, &revision.0.to_be_bytes());
        }
        if compacted != self.began_at.compacted {
            self.batch.put(Table::Meta, layout::META_COMPACTED, &compacted.0.to_be_bytes());
        }
        Prepared { batch: self.batch, revision, compacted }
    }

    fn view(&self) -> View<'_, B> {
        View { state: self.state, pending: Some(&self.pending) }
    }

    fn txn(&mut self, txn: &Txn) -> Result<Result<TxnResponse, CommandError>, BackendError> {
        if let Err(refused) = txn::check(txn) {
            return Ok(Err(refused));
        }
        let mut path = Vec::new();
        if let Err(refused) = txn::decide(&self.view(), self.position, txn, &mut path)? {
            return Ok(Err(refused));
        }
        self.run(txn, &mut path.into_iter()).map(Ok)
    }

    fn run(&mut self, txn: &Txn, path: &mut std::vec::IntoIter<bool>) -> Result<TxnResponse, BackendError> {
        let succeeded = path.next().unwrap_or_default();
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Range(request) => self.range(request)?,
                Op::Put(request) => self.put(request)?,
                Op::Delete(request) => self.delete(request)?,
                Op::Txn(txn) => OpResponse::Txn(self.run(txn, path)?),
            });
        }
        Ok(TxnResponse { succeeded, responses })
    }

    /// The revision of the current command's changes.
    fn writing(&self) -> Revision {
        self.position.revision.next()
    }

    fn range(&mut self, request: &RangeRequest) -> Result<OpResponse, BackendError> {
        let newest = if self.events.is_empty() { self.position.revision } else { self.writing() };
        let at = if request.revision.is_zero() { newest } else { request.revision };
        let found = self.view().range(request, at, newest)?;
        found.map(OpResponse::Range).ok_or_else(|| self.state.missing())
    }

    fn put(&mut self, request: &PutRequest) -> Result<OpResponse, BackendError> {
        let found = self.state.shared.read().index.get(&request.key).map(|(key, head)| (key.clone(), *head));
        let revision = self.writing();
        let (key, head) = match found {
            Some((key, head)) => (key, Some(head).filter(Head::is_live)),
            // The key is copied because the request's key may be a slice that keeps a large buffer alive.
            None => (Bytes::copy_from_slice(&request.key), None),
        };
        // Most puts need only the index entry of the previous version, not its value.
        let is_read = request.prev_kv || request.ignore_value;
        let prev = match head.filter(|_| is_read) {
            Some(head) => Some(self.view().newest(&key, &head)?),
            None => None,
        };
        let kept_value = prev.as_ref().filter(|_| request.ignore_value).map(|prev| prev.value.clone());
        let kept_lease = head.filter(|_| request.ignore_lease).map(|head| head.lease);
        let kv = KeyValue {
            key,
            value: kept_value.unwrap_or_else(|| request.value.clone()),
            create_revision: head.map_or(revision, |head| head.create_revision),
            mod_revision: revision,
            version: head.map_or(0, |head| head.version) + 1,
            lease: kept_lease.unwrap_or(request.lease),
        };
        self.write(Event::Put { kv, prev: unread(head) }, head);
        Ok(OpResponse::Put { prev: prev.filter(|_| request.prev_kv) })
    }

    fn delete(&mut self, request: &DeleteRequest) -> Result<OpResponse, BackendError> {
        let at = self.writing();
        let doomed = RangeRequest { keys_only: !request.prev_kv, ..RangeRequest::new(request.range.clone()) };
        let doomed = self.view().range(&doomed, at, at)?.ok_or_else(|| self.state.missing())?.kvs;
        for prev in &doomed {
            self.write_delete(prev.key.clone(), Head::of(prev));
        }
        let deleted = doomed.len() as u64;
        Ok(OpResponse::Delete { deleted, prev: if request.prev_kv { doomed } else { Vec::new() } })
    }

    fn write_delete(&mut self, key: Bytes, prev: Head) {
        let kv = KeyValue { key, mod_revision: self.writing(), ..KeyValue::default() };
        self.write(Event::Delete { kv, prev: unread(Some(prev)) }, Some(prev));
    }

    /// Records a change in the batch, in the index and as an event.
    fn write(&mut self, event: Event, prev: Option<Head>) {
        let kv = event.kv();
        let head = Head::of(kv);
        layout::version_key(&kv.key, kv.mod_revision, &mut self.row_key);
        layout::version_value(kv, &mut self.row);
        self.batch.put(Table::Versions, &self.row_key, &self.row);

        let sub = u32::try_from(self.events.len()).expect("a command has fewer than 2^32 events");
        let previous = prev.map_or(Revision::ZERO, |prev| prev.mod_revision);
        layout::event_value(!head.is_live(), previous, &kv.key, &mut self.row);
        self.batch.put(Table::Events, &layout::event_key(kv.mod_revision, sub), &self.row);

        // The version is pending before the index has its entry, so that every entry's version can be found.
        self.pending.push(kv.clone());
        let old_lease = prev.map_or(LeaseId::NONE, |prev| prev.lease);
        {
            let mut shared = self.state.shared.write();
            shared.index.insert(kv.key.clone(), head);
            if old_lease != head.lease {
                shared.leases.detach(&kv.key, old_lease);
                shared.leases.attach(kv.key.clone(), head.lease);
            }
        }
        if self.events.is_empty() {
            // Most commands change one key.
            self.events.reserve_exact(1);
        }
        self.events.push(event);
    }

    fn compact(&mut self, requested: Revision) -> Result<(), CommandError> {
        let Position { revision: current, compacted } = self.position;
        if requested > current {
            return Err(CommandError::FutureRevision { requested, current });
        }
        if requested <= compacted {
            return Err(CommandError::Compacted { requested, compacted });
        }
        self.position.compacted = requested;
        Ok(())
    }

    fn raise_version(&mut self, version: CommandVersion) -> Outcome {
        let mut shared = self.state.shared.write();
        if shared.commands < version {
            shared.commands = version;
            self.batch.put(Table::Meta, layout::META_COMMANDS, &version.0.to_be_bytes());
        }
        Outcome::RaiseVersion { version: shared.commands }
    }

    fn grant(&mut self, id: LeaseId, ttl_seconds: u64) -> Result<Outcome, CommandError> {
        if id == LeaseId::NONE {
            return Err(CommandError::LeaseNotFound(id));
        }
        if self.state.lease(id).is_some() {
            return Err(CommandError::LeaseExists(id));
        }
        self.set_lease(LeaseInfo { id, ttl_seconds, generation: 1 });
        Ok(Outcome::LeaseGrant { id, ttl_seconds })
    }

    fn keep_alive(&mut self, id: LeaseId) -> Result<Outcome, CommandError> {
        let lease = self.state.lease(id).ok_or(CommandError::LeaseNotFound(id))?;
        self.set_lease(LeaseInfo { generation: lease.generation + 1, ..lease });
        Ok(Outcome::LeaseKeepAlive { id, ttl_seconds: lease.ttl_seconds })
    }

    fn set_lease(&mut self, lease: LeaseInfo) {
        let row = layout::lease_value(lease.ttl_seconds, lease.generation);
        self.batch.put(Table::Leases, &layout::lease_key(lease.id), &row);
        self.state.shared.write().leases.set(lease);
    }

    fn revoke(&mut self, id: LeaseId, generation: Option<u64>) -> Result<Result<Outcome, CommandError>, BackendError> {
        let Some(lease) = self.state.lease(id) else { return Ok(Err(CommandError::LeaseNotFound(id))) };
        if generation.is_some_and(|seen| seen != lease.generation) {
            return Ok(Ok(Outcome::LeaseRevoke { revoked: false }));
        }
        for key in self.state.lease_keys(id) {
            let head = self.state.shared.read().index.get(&key).map(|(_, head)| *head);
            if let Some(head) = head.filter(Head::is_live) {
                self.write_delete(key, head);
            }
        }
        self.batch.delete(Table::Leases, &layout::lease_key(id));
        self.state.shared.write().leases.remove(id);
        Ok(Ok(Outcome::LeaseRevoke { revoked: true }))
    }
}

fn unread(head: Option<Head>) -> Previous {
    head.map_or(Previous::None, |head| Previous::Unread(head.mod_revision))
}
