//! A simulated node: executes plans without Docker, and lets containers run or fail as the test chooses.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{
    Action, Completion, ContainerRecord, Exit, FailureReason, FenceVerdict, Memory, NodeFacts, Observed, Outcome,
    PodPlan, PodView, ProbeKind, RunState, Sandbox, SandboxState, TerminationCause, at, plan, restrict, spec,
};
use crate::plan::backoff;

/// The behaviour of a container after it is started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Runs,
    Exits(i32),
}

pub(super) struct Simulation {
    pub pod: Pod,
    pub observed: Observed,
    pub memory: Memory,
    pub reported: PodStatus,
    pub now: Timestamp,
    pub healthy: bool,
    pub missing_image: Option<FailureReason>,
    pub broken_start: Option<FailureReason>,
    pub broken_hook: bool,
    /// The engine refuses to change the resources of containers.
    pub broken_resize: bool,
    /// Hooks start but never end.
    pub held_hook: bool,
    /// Containers that ignore SIGTERM and end only by SIGKILL.
    pub deaf: BTreeSet<String>,
    /// Exit code of a container that ends by SIGTERM.
    pub stop_code: i32,
    pub stopped: Vec<String>,
    /// The messages of stops, in order.
    pub stop_messages: Vec<String>,
    /// The containers whose preStop hook has run, in order.
    pub pre_stops: Vec<String>,
    pub probes: usize,
    pub probed: BTreeMap<ProbeKind, usize>,
    /// No master answers, so volumes are prepared from the last known content.
    pub unreachable: bool,
    pub prepared: usize,
    pub deleted: bool,
    fates: BTreeMap<String, Fate>,
    starts: Vec<String>,
    /// Stops of containers that ignore SIGTERM, with the time of their SIGKILL.
    stopping: Vec<(Timestamp, Action)>,
}

impl Simulation {
    pub(super) fn new(pod: Pod) -> Self {
        Simulation {
            pod,
            observed: Observed::default(),
            memory: Memory { adopted: true, start_time: Some(at(0)), ..Memory::default() },
            reported: PodStatus::default(),
            now: at(0),
            healthy: true,
            missing_image: None,
            broken_start: None,
            broken_hook: false,
            broken_resize: false,
            held_hook: false,
            deaf: BTreeSet::new(),
            stop_code: 143,
            stopped: Vec::new(),
            stop_messages: Vec::new(),
            pre_stops: Vec::new(),
            probes: 0,
            probed: BTreeMap::new(),
            unreachable: false,
            prepared: 0,
            deleted: false,
            fates: BTreeMap::new(),
            starts: Vec::new(),
            stopping: Vec::new(),
        }
    }

    /// Replaces the memory by that of an agent that has just started.
    pub(super) fn restart_agent(&mut self) {
        self.memory = Memory::new(&self.reported, self.now);
        self.memory.adopt(&self.pod, &self.observed, &self.reported);
    }

    pub(super) fn set_image(&mut self, name: &str, image: &str) {
        let spec = self.pod.spec.as_mut().expect("a spec");
        let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        for container in containers.filter(|container| container.name == name) {
            container.image = Some(image.to_owned());
        }
    }

    /// Returns the number of seconds until no container runs.
    pub(super) fn seconds_until_stopped(&mut self) -> i64 {
        let begun = self.now;
        for _ in 0..1000 {
            self.settle();
            if self.observed.running().next().is_none() {
                return backoff::seconds_between(begun, self.now);
            }
            self.pass(1);
        }
        panic!("containers never end: {:?}", self.observed);
    }

    pub(super) fn fate(&mut self, name: &str, fate: Fate) {
        self.fates.insert(name.to_owned(), fate);
    }

    pub(super) fn started(&self) -> &[String] {
        &self.starts
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now = backoff::after(self.now, seconds);
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.stopping).into_iter().partition(|(kill, _)| *kill <= now);
        self.stopping = later;
        for (_, action) in due {
            let Action::StopContainer { container, .. } = &action else { continue };
            self.exit(container, 137);
            self.memory.record(&self.pod, &Completion { action, outcome: Outcome::Done }, now);
        }
    }

    pub(super) fn terminate(&mut self, cause: TerminationCause, grace_seconds: i64) {
        self.memory.terminate(cause, grace_seconds, self.now);
    }

    pub(super) fn plan(&self) -> PodPlan {
        self.plan_within(FenceVerdict::Run)
    }

    /// Plans with the restrictions of the pod's fence.
    pub(super) fn plan_within(&self, verdict: FenceVerdict) -> PodPlan {
        let facts = NodeFacts { host_ip: "192.0.2.1".to_owned(), runtime_scheme: "docker".to_owned() };
        let view = PodView {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            reported: &self.reported,
            facts: &facts,
            now: self.now,
        };
        restrict(view, plan(view), verdict)
    }

    /// Plans once and executes the actions. Returns whether there were any.
    pub(super) fn step(&mut self) -> bool {
        self.step_within(FenceVerdict::Run)
    }

    fn step_within(&mut self, verdict: FenceVerdict) -> bool {
        let planned = self.plan_within(verdict);
        self.reported = planned.status;
        let mut any = false;
        for action in planned.actions {
            any = true;
            self.memory.begin(&self.pod, &action);
            if self.held_hook && matches!(action, Action::RunPostStart { .. }) {
                continue;
            }
            if let Action::StopContainer { container, grace, pre_stop, why, id, .. } = &action
                && self.deaf.contains(container)
            {
                let left = i64::try_from(grace.for_stop(self.now).as_secs()).expect("a short time");
                self.stopped.push(id.clone());
                self.stop_messages.push(why.clone());
                self.note_pre_stop(container, id, *pre_stop);
                self.stopping.push((backoff::after(self.now, left), action));
                continue;
            }
            let outcome = self.execute(&action);
            self.memory.record(&self.pod, &Completion { action, outcome }, self.now);
        }
        any
    }

    /// Plans and executes until the plan is empty at this time.
    pub(super) fn settle(&mut self) -> PodStatus {
        self.settle_within(FenceVerdict::Run)
    }

    /// [`Simulation::settle`] with the restrictions of the pod's fence.
    pub(super) fn settle_within(&mut self, verdict: FenceVerdict) -> PodStatus {
        for _ in 0..100 {
            if !self.step_within(verdict) {
                return self.reported.clone();
            }
        }
        panic!("the pod does not come to rest: {:?}", self.plan());
    }

    pub(super) fn exit(&mut self, name: &str, code: i32) {
        let now = self.now;
        for record in self.observed.containers.iter_mut().filter(|record| record.name == name && record.is_running()) {
            record.state = RunState::Exited(ended(record, code, now));
        }
    }

    /// Injects a failure, or ends one.
    pub(super) fn disturb(&mut self, event: u8) {
        match event {
            0 => self.exit("main", 1),
            1 => self.exit("side", 0),
            2 => self.missing_image = Some(FailureReason::ErrImagePull),
            3 => self.broken_start = Some(FailureReason::RunContainerError),
            4 => {
                for sandbox in &mut self.observed.sandboxes {
                    sandbox.state = SandboxState::Stopped;
                }
            }
            5 => self.calm(),
            6 => self.pass(15),
            7 => self.set_image("main", "x:2"),
            8 => self.set_image("main", "x"),
            _ => self.pass(400),
        }
    }

    pub(super) fn calm(&mut self) {
        self.missing_image = None;
        self.broken_start = None;
        self.healthy = true;
    }

    fn execute(&mut self, action: &Action) -> Outcome {
        let failed = |reason| Outcome::Failed { reason, message: "the test wants it so".to_owned() };
        match action {
            Action::PrepareVolumes => {
                self.prepared += 1;
                if self.unreachable {
                    return Outcome::Remembered { message: "no master answered".to_owned() };
                }
            }
            Action::EnsureImage { .. } => {
                if let Some(reason) = self.missing_image {
                    return failed(reason);
                }
            }
            Action::CreateSandbox { attempt } => self.observed.sandboxes.push(Sandbox {
                id: format!("sandbox-{attempt}"),
                attempt: *attempt,
                state: SandboxState::Created,
                ips: Vec::new(),
                created_at: self.now,
            }),
            Action::StartSandbox { id } => {
                for sandbox in self.observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == *id) {
                    sandbox.state = SandboxState::Running;
                    sandbox.ips = vec![format!("10.0.0.{}", sandbox.attempt + 1)];
                }
            }
            Action::CreateContainer { container, attempt, sandbox_id } => match self.broken_start {
                Some(reason) if reason != FailureReason::RunContainerError => return failed(reason),
                _ => self.create(container, *attempt, sandbox_id),
            },
            Action::StartContainer { container, id, .. } => {
                if let Some(reason) = self.broken_start {
                    return failed(reason);
                }
                self.start(container, id);
            }
            Action::RunPostStart { .. } => {
                if self.broken_hook {
                    return failed(FailureReason::FailedPostStart);
                }
            }
            Action::RunProbe { kind, .. } => {
                self.probes += 1;
                *self.probed.entry(*kind).or_default() += 1;
                return Outcome::Probed { healthy: self.healthy, output: String::new() };
            }
            Action::RunPreStop { container, id, .. } => self.note_pre_stop(container, id, true),
            Action::StopContainer { container, id, pre_stop, why, .. } => {
                self.stopped.push(id.clone());
                self.stop_messages.push(why.clone());
                self.note_pre_stop(container, id, *pre_stop);
                self.exit(container, self.stop_code);
            }
            Action::RemoveHistory { ids } => {
                self.observed.containers.retain(|record| !ids.contains(&record.id));
                self.observed.sandboxes.retain(|sandbox| !ids.contains(&sandbox.id));
            }
            Action::StopSandbox { id } => {
                for sandbox in self.observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == *id) {
                    sandbox.state = SandboxState::Stopped;
                }
            }
            Action::RemovePod => self.observed = Observed::default(),
            Action::ResizeContainer { .. } if self.broken_resize => return failed(FailureReason::Other),
            Action::MarkFenced { .. } | Action::ResizeContainer { .. } => {}
            Action::StopUnknown { id, .. } => self.stopped.push(id.clone()),
            Action::DeleteFromApi => self.deleted = true,
        }
        Outcome::Done
    }

    fn note_pre_stop(&mut self, name: &str, id: &str, runs: bool) {
        let hooks = spec::find_container(&self.pod, name).and_then(|(container, _)| container.lifecycle.clone());
        if runs && hooks.is_some_and(|hooks| hooks.pre_stop.is_some()) {
            self.pre_stops.push(id.to_owned());
        }
    }

    fn create(&mut self, name: &str, attempt: u32, sandbox_id: &str) {
        let image = spec::find_container(&self.pod, name).and_then(|(container, _)| container.image.clone());
        self.observed.containers.push(ContainerRecord {
            id: format!("{name}-{attempt}"),
            name: name.to_owned(),
            attempt,
            sandbox_id: sandbox_id.to_owned(),
            image_id: format!("docker://sha256:{}", image.clone().unwrap_or_default()),
            image: image.unwrap_or_default(),
            state: RunState::Created,
        });
    }

    fn start(&mut self, name: &str, id: &str) {
        self.starts.push(name.to_owned());
        for record in self.observed.containers.iter_mut().filter(|record| record.id == id) {
            let running =
                self.observed.sandboxes.iter().any(|s| s.id == record.sandbox_id && s.state == SandboxState::Running);
            assert!(running, "{id} is started in a sandbox that does not run");
            record.state = RunState::Running { started_at: self.now };
            if let Some(Fate::Exits(code)) = self.fates.get(name) {
                record.state = RunState::Exited(ended(record, *code, self.now));
            }
        }
    }
}

fn ended(record: &ContainerRecord, code: i32, now: Timestamp) -> Exit {
    Exit {
        started_at: record.started_at(),
        finished_at: now,
        code,
        reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
    }
}
