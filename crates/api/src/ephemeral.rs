//! Ephemeral containers, which have the fields of a container and the name of a target.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer};

/// Moves the fields, which both types have, into a container. A field that only one of them has does not compile.
macro_rules! container_with {
    ($ephemeral:expr, $($field:ident),* $(,)?) => {{
        let EphemeralContainer { $($field,)* target_container_name: _ } = $ephemeral;
        Container { $($field,)* }
    }};
}

/// Returns the container that an ephemeral container describes. Its target is lost.
#[must_use]
pub fn container(ephemeral: &EphemeralContainer) -> Container {
    container_with!(
        ephemeral.clone(),
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    )
}
