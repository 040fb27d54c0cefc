//! An agent with a fake cluster instead of masters.

mod cluster;
mod engine;
mod masters;
mod node;
mod pki;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};

pub use self::cluster::FakeCluster;
pub use self::engine::{IMAGE, busybox, docker, ensure_image_of_user};
pub use self::node::{NODE, Node1};
pub use self::pki::Pki;

/// Maximum time of a wait. It is long because Docker is slow on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `check` returns `Ok`.
pub async fn eventually<T, E: std::fmt::Debug>(what: &str, check: impl AsyncFn() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(found) => assert!(Instant::now() < deadline, "{what}: still {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn is_ready(status: &PodStatus) -> bool {
    condition(status, "Ready") == Some("True")
}

pub fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<&'a str> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_).map(|c| c.status.as_str())
}

pub fn container<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [status.init_container_statuses.as_ref(), status.container_statuses.as_ref()];
    lists.into_iter().flatten().flatten().find(|container| container.name == name)
}

pub fn waiting_reason(status: &PodStatus, name: &str) -> Option<String> {
    container(status, name)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// Returns the state of a container that has ended.
pub fn terminated<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStateTerminated> {
    container(status, name)?.state.as_ref()?.terminated.as_ref()
}
