//! One pod's worker: plans, executes, waits for something to happen, and plans again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::SelectAll;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::checkpoint;
use crate::cluster::ObjectRef;
use crate::context::Context;
use crate::events::Note;
use crate::execute::{self, Task};
use crate::plan::{
    self, Action, Completion, FailureReason, FenceVerdict, Memory, Observed, Outcome, PendingReason, PodRef, PodView,
    ProbeKind, TerminationCause, Work,
};
use crate::volumes;
use crate::volumes::objects::Watched;

/// Maximum time between two plans, in case an event was lost.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// Delay before the masters are asked again whether a fenced pod is this node's.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Maximum grace period of a pod whose object is gone, in seconds. It may run elsewhere already.
const GONE_GRACE_SECONDS: i64 = 2;
/// Delay before the fence's marks are read again after a failure.
const MARKS_RETRY: Duration = Duration::from_secs(1);
/// Delay before the engine is asked again for its capabilities.
const CAPABILITIES_RETRY: Duration = Duration::from_secs(1);

/// A pod as the API has it.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub pod: Arc<Pod>,
    /// The object is gone, or bound to another node.
    pub gone: bool,
}

pub(crate) struct Worker {
    context: Arc<Context>,
    reference: PodRef,
    desired: watch::Receiver<Desired>,
    observed: watch::Receiver<Arc<Observed>>,
    memory: Memory,
    reported: PodStatus,
    saved: Option<Arc<Pod>>,
    tasks: JoinSet<Completion>,
    running: HashMap<Id, (Action, AbortHandle)>,
    watched: Vec<Arc<Watched>>,
    changes: SelectAll<WatchStream<u64>>,
    /// The version of the pod whose labels and annotations were last compared.
    shown: Option<Arc<Pod>>,
    /// Notifications that a fence may allow more or less than before. `None` for a pod without a fence.
    fence_changes: Option<watch::Receiver<()>>,
    /// Notifications that other pods may have released resources.
    released: Option<watch::Receiver<()>>,
    /// The pod of the last plan, and the same pod with the resources that this node has given to it.
    given: Option<(Arc<Pod>, Arc<Pod>)>,
    /// Ids of the ended containers at the last lookup of the fence's marks.
    looked_up: BTreeSet<String>,
    /// The request in flight that asks whether the fenced pod is still this node's.
    confirmation: JoinSet<()>,
}

impl Worker {
    pub(crate) fn new(context: Arc<Context>, desired: watch::Receiver<Desired>) -> Self {
        let pod = Arc::clone(&desired.borrow().pod);
        let reference = plan::pod_ref(&pod);
        let observed = context.runtime.subscribe(&reference.uid);
        let reported = pod.status.as_ref().map(plan::own_report).unwrap_or_default();
        let fence_changes = context.fence.add(&pod).then(|| context.fence.changes());
        let mut memory = Memory::new(&reported, Timestamp::now());
        let allocation = plan::adopted(&pod, &reported);
        if !plan::is_over(&reported) {
            context.allocations.add(&reference.uid, &plan::with_allocated(&pod, &allocation));
        }
        memory.allocation = Some(allocation);
        let released = Some(context.allocations.changes());
        Worker {
            context,
            reference,
            desired,
            observed,
            memory,
            reported,
            saved: None,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            watched: Vec::new(),
            changes: SelectAll::new(),
            shown: None,
            fence_changes,
            released,
            given: None,
            looked_up: BTreeSet::new(),
            confirmation: JoinSet::new(),
        }
    }

    /// Runs until nothing is left of the pod, or until `shutdown`, which leaves its containers alone.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> PodRef {
        self.watch_objects();
        loop {
            if !self.memory.adopted {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = self.adopt() => {}
                }
            }
            let Some(sleep) = self.step().await else { break };
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.desired.changed() => if changed.is_err() { break },
                changed = self.observed.changed() => if changed.is_err() { break },
                Some(done) = self.tasks.join_next_with_id() => self.finish(done),
                () = next_change(&mut self.fence_changes) => {}
                () = next_change(&mut self.released), if self.memory.pending_resize.is_some() => {}
                Some(_) = self.confirmation.join_next() => {}
                Some(_) = self.changes.next() => self.memory.volumes_stale = true,
                () = tokio::time::sleep(sleep) => {}
            }
            // The next plan sees the outcome of every task that has finished by now.
            while let Some(done) = self.tasks.try_join_next_with_id() {
                self.finish(done);
            }
        }
        // Actions in flight get a moment to finish, so that a container is not left half started or half stopped.
        let settle = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), settle).await.is_err() {
            tracing::debug!(pod = %self.reference, "the worker ends with actions still in flight");
        }
        self.reference
    }

    /// Takes over the containers of an earlier agent, if the runtime knows all of them. Until then, the plans only stop
    /// containers.
    async fn adopt(&mut self) {
        let observed = Arc::clone(&self.observed.borrow());
        if self.memory.may_adopt(&observed) {
            self.admit(&observed).await;
            let pod = Arc::clone(&self.desired.borrow().pod);
            self.memory.adopt(&pod, &observed, &self.reported);
        }
    }

    /// Rejects a pod that asks for something this node does not support. A pod that already runs was admitted before.
    async fn admit(&mut self, observed: &Observed) {
        let pod = Arc::clone(&self.desired.borrow().pod);
        let over = plan::is_over(&self.reported);
        if over || observed.running().next().is_some() || !observed.unknown.is_empty() {
            return;
        }
        let capabilities = loop {
            match self.context.runtime.capabilities().await {
                Ok(Some(capabilities)) => break capabilities,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(pod = %self.reference, error = %error, "cannot ask the engine whether the pod can run here");
                    tokio::time::sleep(CAPABILITIES_RETRY).await;
                }
            }
        };
        let verdict = admission::examine(&pod, &capabilities);
        for message in verdict.unenforced {
            self.context.recorder.record(&self.reference, Note::warning("Unenforced", message));
        }
        if let Some(rejection) = verdict.rejection {
            tracing::info!(pod = %self.reference, reason = rejection.reason, "the pod is rejected: {}", rejection.message);
            self.context.recorder.record(&self.reference, Note::warning(rejection.reason, rejection.message.clone()));
            self.memory.rejected = Some(rejection);
        }
    }

    /// Plans once. Returns the maximum time until the next plan, or `None` when nothing is left of the pod.
    async fn step(&mut self) -> Option<Duration> {
        let desired = self.desired.borrow_and_update().clone();
        let observed = Arc::clone(&self.observed.borrow_and_update());
        let now = Timestamp::now();
        self.memory.start_time.get_or_insert(now);
        let (verdict, stays_for) = self.context.fence.verdict(&self.reference.uid);
        if verdict == FenceVerdict::Run {
            self.memory.release_fenced(&observed);
        }
        let marks = self.note_fenced(&desired.pod, &observed).await;
        self.note_termination(&desired, &observed, now);
        if !self.memory.adopted && self.memory.may_adopt(&observed) {
            return Some(Duration::ZERO);
        }
        self.note_metadata(&desired.pod);
        let pod = self.allocate(&desired.pod);
        let view = PodView {
            pod: &pod,
            observed: &observed,
            memory: &self.memory,
            reported: &self.reported,
            facts: &self.context.facts,
            now,
        };
        let mut planned = plan::restrict(view, plan::plan(view), verdict);
        if let Err(error) = marks {
            // Without the marks, a container that its fence has stopped could count as a success.
            tracing::warn!(pod = %self.reference, error = %error, "cannot read which containers the fence has stopped");
            let is_ending = self.memory.termination.is_some();
            let stops = |action: &Action| action.is_fenced_stop() || is_ending && *action != Action::DeleteFromApi;
            planned.actions.retain(stops);
            for action in planned.actions {
                self.start(&pod, &observed, action);
            }
            return Some(stays_for.map_or(MARKS_RETRY, |until| until.min(MARKS_RETRY)));
        }
        if planned.finished {
            self.context.reporter.forget(&self.reference);
            self.context.fence.forget(&self.reference.uid).await;
            return None;
        }
        if verdict != FenceVerdict::Run {
            self.ask_masters();
        }
        self.report(&desired, planned.status);
        for action in planned.actions {
            self.start(&pod, &observed, action);
        }
        self.save(&desired).await;
        let until = planned.wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        Some([until, stays_for].into_iter().flatten().fold(MAX_SLEEP, Duration::min))
    }

    /// Gives the pod the resources of its spec if they fit, and returns it with those that it was given.
    fn allocate(&mut self, pod: &Arc<Pod>) -> Arc<Pod> {
        if let Some((known, given)) = &self.given
            && Arc::ptr_eq(known, pod)
            && self.memory.pending_resize.is_none()
        {
            return Arc::clone(given);
        }
        let wanted = plan::wanted(pod);
        let allocation = self.memory.allocation.get_or_insert_with(|| wanted.clone());
        if wanted == *allocation {
            self.memory.pending_resize = None;
        } else if self.memory.termination.is_none() && !plan::is_over(&self.reported) {
            let note = match self.context.allocations.resize(&self.reference.uid, pod) {
                Ok(()) => {
                    *allocation = wanted;
                    self.memory.pending_resize = None;
                    Some(Note::normal("ResizeStarted", "Pod resize started"))
                }
                Err(pending) => {
                    let event = match pending.reason {
                        PendingReason::Deferred => "ResizeDeferred",
                        PendingReason::Infeasible => "ResizeInfeasible",
                    };
                    let message = format!("Pod resize {}: {}", pending.reason.as_str(), pending.message);
                    let before = self.memory.pending_resize.replace(pending.clone());
                    before.is_none_or(|before| before.reason != pending.reason).then(|| Note::warning(event, message))
                }
            };
            if let Some(note) = note {
                self.context.recorder.record(&self.reference, note);
            }
        }
        let given = plan::with_allocated(pod, allocation);
        self.given = Some((Arc::clone(pod), Arc::clone(&given)));
        given
    }

    /// Asks the masters whether the pod is still this node's. Does nothing while a request is in flight, or while the
    /// answer could not count.
    fn ask_masters(&mut self) {
        if !self.confirmation.is_empty() {
            return;
        }
        let Some(asked) = self.context.fence.ask(&self.reference.uid) else { return };
        let (context, pod) = (Arc::clone(&self.context), self.reference.clone());
        self.confirmation.spawn(async move {
            match context.cluster.is_assigned(&pod).await {
                Ok(true) => return context.fence.confirm(&pod.uid, asked),
                Ok(false) => tracing::info!(%pod, "the fenced pod is no longer this node's"),
                Err(error) => tracing::debug!(%pod, error = %error, "cannot ask the masters whose the fenced pod is"),
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        });
    }

    /// Writes the pod's checkpoint when the pod has changed. A disk that hangs delays the next plan only briefly, because
    /// that plan may have to stop the pod. Hollow nodes have none ([`checkpoint`]).
    async fn save(&mut self, desired: &Desired) {
        let known = self.saved.as_ref().is_some_and(|saved| Arc::ptr_eq(saved, &desired.pod));
        // A checkpoint written while the pod is being removed would be left behind.
        let removed = self.memory.removed || self.memory.in_flight.contains(&Work::Remove);
        if known || desired.gone || removed || self.context.runtime.is_hollow() {
            return;
        }
        let (data_dir, pod) = (self.context.data_dir.clone(), Arc::clone(&desired.pod));
        let (uid, path) = (self.reference.uid.clone(), checkpoint::pod_dir(&data_dir, &self.reference.uid));
        let saved = self.context.disk.run(&path, move || checkpoint::save(&data_dir, &uid, &pod)).await;
        if let Err(error) = saved.and_then(|saved| saved) {
            tracing::warn!(pod = %self.reference, error = %error, "cannot write the pod's checkpoint");
        }
        self.saved = Some(Arc::clone(&desired.pod));
    }

    /// Looks up which of the containers that have ended were stopped by the fence, which the watchdog may have done.
    async fn note_fenced(&mut self, pod: &Pod, observed: &Observed) -> std::io::Result<()> {
        if self.fence_changes.is_none() {
            return Ok(());
        }
        let ended = || observed.containers.iter().filter_map(|record| Some((&record.id, record.exit()?)));
        // Such a container was stopped, whether or not that could be recorded.
        if let Some(lapsed_at) = self.context.fence.lapsed_at(&self.reference.uid) {
            let stopped = ended().filter(|(_, exit)| exit.finished_at >= lapsed_at);
            self.memory.fenced.extend(stopped.map(|(id, _)| id.clone()));
        }
        let ids: BTreeSet<String> = ended().map(|(id, _)| id.clone()).collect();
        if ids != self.looked_up {
            let marked = self.context.fence.marked(&self.reference.uid).await?;
            let grace = plan::grace_seconds(pod);
            let stopped = ended().filter(|(id, exit)| {
                marked.get(*id).is_some_and(|marked_at| plan::ended_by_fence(exit, *marked_at, grace))
            });
            self.memory.fenced.extend(stopped.map(|(id, _)| id.clone()));
            self.memory.fenced.retain(|id| observed.containers.iter().any(|record| record.id == *id));
            self.looked_up = ids;
        }
        Ok(())
    }

    fn note_termination(&mut self, desired: &Desired, observed: &Observed, now: Timestamp) {
        let pod = &desired.pod;
        let spec_grace = plan::grace_seconds(pod);
        let wanted = if desired.gone {
            Some((TerminationCause::Gone, spec_grace.min(GONE_GRACE_SECONDS)))
        } else if pod.metadata.deletion_timestamp.is_some() {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(spec_grace);
            Some((TerminationCause::Deleted, grace))
        } else {
            let overdue = plan::deadline(pod, self.memory.start_time).is_some_and(|deadline| deadline <= now);
            let over = plan::is_over(&self.reported);
            (overdue && !over).then_some((TerminationCause::DeadlineExceeded, spec_grace))
        };
        let Some((cause, grace_seconds)) = wanted else { return };
        if self.memory.termination.is_none() {
            tracing::debug!(pod = %self.reference, ?cause, "terminating the pod");
        }
        self.memory.terminate(cause, grace_seconds, now);
        self.abort_unneeded(observed);
    }

    /// Marks volumes that show labels or annotations as stale when these have changed.
    fn note_metadata(&mut self, pod: &Arc<Pod>) {
        if self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, pod)) {
            return;
        }
        let before = self.shown.replace(Arc::clone(pod));
        let changed = before.is_some_and(|before| {
            (&before.metadata.labels, &before.metadata.annotations) != (&pod.metadata.labels, &pod.metadata.annotations)
        });
        if changed && volumes::show_metadata(pod) {
            self.memory.volumes_stale = true;
        }
    }

    /// Aborts long work that a terminating pod does not need: image pulls, postStart hooks and probes. Readiness probes
    /// continue for as long as their container runs.
    fn abort_unneeded(&mut self, observed: &Observed) {
        let runs = |id: &str| observed.running().any(|record| record.id == id);
        self.running.retain(|_, (action, handle)| {
            let work = action.work();
            let useless = match &work {
                Work::Image(..) | Work::PostStart(_) => true,
                Work::Probe(id, kind) => *kind != ProbeKind::Readiness || !runs(id),
                _ => false,
            };
            if useless {
                handle.abort();
                self.memory.abandon(&work);
                return false;
            }
            true
        });
    }

    fn report(&mut self, desired: &Desired, status: PodStatus) {
        if status == self.reported {
            return;
        }
        for note in execute::back_off_notes(&desired.pod, &self.reported, &status) {
            self.context.recorder.record(&self.reference, note);
        }
        self.reported.clone_from(&status);
        if plan::is_over(&status) {
            self.context.allocations.remove(&self.reference.uid);
        }
        if !desired.gone && !self.memory.deleted_from_api {
            self.context.reporter.publish(&self.reference, status);
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, observed: &Arc<Observed>, action: Action) {
        self.memory.begin(pod, &action);
        let task = Task {
            context: Arc::clone(&self.context),
            pod: Arc::clone(pod),
            observed: Arc::clone(observed),
            status: self.reported.clone(),
        };
        let handle = self.tasks.spawn(task.run(action.clone()));
        self.running.insert(handle.id(), (action, handle));
    }

    fn finish(&mut self, done: Result<(Id, Completion), tokio::task::JoinError>) {
        match done {
            Ok((id, completion)) => {
                if self.running.remove(&id).is_some() {
                    let pod = Arc::clone(&self.desired.borrow().pod);
                    self.memory.record(&pod, &completion, Timestamp::now());
                }
            }
            Err(error) => {
                if let Some((action, _)) = self.running.remove(&error.id()) {
                    tracing::error!(pod = %self.reference, ?action, error = %error, "an action panicked");
                    let message = "internal error: see the log of the node's agent".to_owned();
                    let outcome = Outcome::Failed { reason: FailureReason::Other, message };
                    let pod = Arc::clone(&self.desired.borrow().pod);
                    self.memory.record(&pod, &Completion { action, outcome }, Timestamp::now());
                }
            }
        }
    }

    /// Watches the objects that the pod's volumes show, for as long as the pod lives.
    fn watch_objects(&mut self) {
        if self.context.runtime.is_hollow() {
            return;
        }
        let objects: BTreeSet<ObjectRef> = volumes::references(&self.desired.borrow().pod);
        for object in &objects {
            let watched = self.context.objects.watch(object);
            self.changes.push(WatchStream::from_changes(watched.changes()));
            self.watched.push(watched);
        }
    }
}

async fn next_change(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
