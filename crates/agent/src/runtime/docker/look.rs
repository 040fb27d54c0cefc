//! Converts Docker's description of one container. Pure.

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use jiff::Timestamp;

use super::labels::{Identity, identify};
use super::table::Seen;
use crate::plan::{ContainerRecord, Exit, RunState, Sandbox, SandboxState};

pub(super) const OOM_KILLED: &str = "OOMKilled";

/// Returns the identity and the state of a container, or `None` for one that is not the agent's.
pub(super) fn interpret(answer: &ContainerInspectResponse) -> Option<(Identity, Seen)> {
    let labels = answer.config.as_ref()?.labels.as_ref()?;
    let identity = identify(labels)?;
    let id = answer.id.clone()?;
    let state = answer.state.as_ref()?;
    let created_at = answer.created.as_deref().and_then(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let seen = match &identity.container {
        None => Seen::Sandbox(Sandbox {
            id,
            attempt: identity.attempt,
            state: sandbox_state(state),
            ips: ips(answer),
            created_at,
        }),
        Some(container) => Seen::Container(ContainerRecord {
            id,
            name: container.name.clone(),
            attempt: identity.attempt,
            sandbox_id: container.sandbox_id.clone(),
            image: container.image.clone(),
            image_id: answer.image.as_ref().map(|image| format!("docker://{image}")).unwrap_or_default(),
            state: run_state(state, created_at),
        }),
    };
    Some((identity, seen))
}

fn sandbox_state(state: &ContainerState) -> SandboxState {
    let failed = state.error.as_ref().is_some_and(|error| !error.is_empty());
    match state.status {
        _ if state.running == Some(true) => SandboxState::Running,
        // Docker leaves a sandbox that it could not start in the state `created`, with an error.
        Some(ContainerStateStatusEnum::CREATED) if !failed => SandboxState::Created,
        _ => SandboxState::Stopped,
    }
}

fn ips(answer: &ContainerInspectResponse) -> Vec<String> {
    let networks = answer.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut ips: Vec<String> = Vec::new();
    for network in networks.into_iter().flat_map(|networks| networks.values()) {
        ips.extend(network.ip_address.clone().filter(|ip| !ip.is_empty()));
        ips.extend(network.global_ipv6_address.clone().filter(|ip| !ip.is_empty()));
    }
    ips
}

fn run_state(state: &ContainerState, created_at: Timestamp) -> RunState {
    let started_at = state.started_at.as_deref().and_then(time);
    let error = state.error.clone().filter(|error| !error.is_empty());
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0);
    if state.running == Some(true) {
        return RunState::Running { started_at: started_at.unwrap_or(created_at) };
    }
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return match error {
            // Docker leaves a container that it could not start in the state `created`, with an error.
            Some(message) => RunState::Exited(Exit {
                started_at: None,
                finished_at: created_at,
                code: if code == 0 { 128 } else { code },
                reason: "StartError".to_owned(),
                message,
            }),
            None => RunState::Created,
        };
    }
    let reason = match (state.oom_killed, code) {
        (Some(true), _) => OOM_KILLED,
        (_, 0) => "Completed",
        _ => "Error",
    };
    RunState::Exited(Exit {
        started_at,
        finished_at: state.finished_at.as_deref().and_then(time).unwrap_or(created_at),
        code,
        reason: reason.to_owned(),
        message: error.unwrap_or_default(),
    })
}

/// Parses a time of Docker, whose zero time means none.
fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| *time > Timestamp::UNIX_EPOCH)
}
