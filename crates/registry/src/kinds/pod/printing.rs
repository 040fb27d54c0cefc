//! The cells of `kubectl get pods`. The status word depends on the containers, not only on the phase.

use jiff::Timestamp;
use quorate_api::duration;
use serde_json::Value;

use crate::descriptor::Column;
use crate::table::{NONE, age_cell, column, name_cell, name_column, or_none, wide};
use crate::value::{int, items, text};

pub fn columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Ready"),
        column("Status"),
        column("Restarts"),
        column("Age"),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ]
}

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = Summary::of(pod);
    let ip = items(&status["podIPs"]).first().map_or_else(|| text(&status["podIP"]), |ip| text(&ip["ip"]));
    vec![
        name_cell(pod),
        Value::from(format!("{}/{}", summary.ready, summary.total)),
        Value::from(summary.reason),
        Value::from(summary.restarts.cell(now)),
        age_cell(pod, now),
        or_none(ip),
        or_none(text(&spec["nodeName"])),
        or_none(text(&status["nominatedNodeName"])),
        Value::from(readiness_gates(pod)),
    ]
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += int(&container["restartCount"]);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str().and_then(|time| time.parse().ok());
        self.last = self.last.max(ended);
    }

    /// Formats the cell, such as `2 (3m ago)`.
    fn cell(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => format!("{} ({} ago)", self.count, duration::age(Some(last), now)),
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars = items(&spec["initContainers"]).iter().filter(|c| is_sidecar(c)).count();
        let mut summary = Summary {
            ready: 0,
            total: items(&spec["containers"]).len() + sidecars,
            reason: phase_reason(status),
            restarts: Restarts::default(),
        };
        let (initializing, sidecar_restarts) = summary.visit_init_containers(spec, status);
        if !initializing || condition_is_true(status, "Initialized") {
            summary.restarts = sidecar_restarts;
            summary.visit_containers(status);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if status["reason"] == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(text(&status["phase"]), "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Returns whether the pod is still initializing, and how often its sidecars restarted.
    fn visit_init_containers(&mut self, spec: &Value, status: &Value) -> (bool, Restarts) {
        let declared = items(&spec["initContainers"]);
        let mut sidecar_restarts = Restarts::default();
        for (index, container) in items(&status["initContainerStatuses"]).iter().enumerate() {
            let sidecar = declared.iter().any(|c| c["name"] == container["name"] && is_sidecar(c));
            self.restarts.add(container);
            if sidecar {
                sidecar_restarts.add(container);
            }
            let terminated = &container["state"]["terminated"];
            let waiting = text(&container["state"]["waiting"]["reason"]);
            if terminated.is_object() && int(&terminated["exitCode"]) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.reason = if terminated.is_object() {
                format!("Init:{}", termination_reason(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", declared.len())
            };
            return (true, sidecar_restarts);
        }
        (false, sidecar_restarts)
    }

    fn visit_containers(&mut self, status: &Value) {
        let mut has_running = false;
        for container in items(&status["containerStatuses"]).iter().rev() {
            self.restarts.add(container);
            let state = &container["state"];
            let waiting = text(&state["waiting"]["reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if state["terminated"].is_object() {
                self.reason = termination_reason(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            self.reason = if condition_is_true(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// Returns the reason of the status before the containers are considered.
fn phase_reason(status: &Value) -> String {
    let gated = items(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    match text(&status["reason"]) {
        _ if gated => "SchedulingGated",
        "" => text(&status["phase"]),
        reason => reason,
    }
    .to_owned()
}

fn termination_reason(terminated: &Value) -> String {
    match (text(&terminated["reason"]), int(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Returns whether an init container keeps running beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn condition_is_true(status: &Value, kind: &str) -> bool {
    items(&status["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| condition_is_true(&pod["status"], text(&gate["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}
