//! Determines the user of a container from its spec and its image. Pure.

use crate::runtime::ContainerSpec;

/// Whether the decision depends on the image's user.
pub(super) fn depends_on_image(spec: &ContainerSpec) -> bool {
    spec.security.user.is_none() && (spec.security.group.is_some() || spec.security.must_not_be_root)
}

/// Returns Docker's `user` or `user:group`, or `None` to use the image's setting. `image` is that setting, if it has
/// been looked up.
///
/// # Errors
/// The kubelet's message for a user that contradicts `runAsNonRoot`.
pub(super) fn of(spec: &ContainerSpec, image: Option<&str>) -> Result<Option<String>, String> {
    let security = &spec.security;
    let place = format!("(pod: \"{}\", container: {})", spec.pod, spec.name);
    let with_group = |user: &str| match security.group {
        Some(group) => format!("{user}:{group}"),
        None => user.to_owned(),
    };
    if let Some(user) = security.user {
        if security.must_not_be_root && user == 0 {
            return Err(format!("container's runAsUser breaks non-root policy {place}"));
        }
        return Ok(Some(with_group(&user.to_string())));
    }
    if !depends_on_image(spec) {
        return Ok(None);
    }
    let image = image.unwrap_or_default();
    let user = match image.split(':').next().unwrap_or_default() {
        "" => "0",
        user => user,
    };
    if security.must_not_be_root {
        match user.parse::<i64>() {
            Ok(0) => return Err(format!("container has runAsNonRoot and image will run as root {place}")),
            Ok(_) => {}
            Err(_) => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is \
                     non-root {place}"
                ));
            }
        }
    }
    // The checked user is named explicitly, because the image's name may refer to another image by now.
    Ok(Some(if security.group.is_some() || image.is_empty() { with_group(user) } else { image.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PodRef;
    use crate::runtime::{Limits, Security};

    fn spec(user: Option<i64>, group: Option<i64>, must_not_be_root: bool) -> ContainerSpec {
        ContainerSpec {
            pod: PodRef { namespace: "shop".into(), name: "web".into(), uid: "u1".into() },
            name: "c".into(),
            attempt: 0,
            sandbox_id: String::new(),
            runs_to_completion: false,
            image: "i".into(),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            limits: Limits::default(),
            security: Security { user, group, must_not_be_root, ..Security::default() },
            host_pid: false,
            share_processes: false,
            process_target: None,
            message_file: None,
            message_path: String::new(),
            message_from_logs: false,
            stop_signal: None,
            stdin: false,
            stdin_once: false,
            tty: false,
        }
    }

    #[test]
    fn the_image_decides_the_user_that_the_pod_does_not_set() {
        // runAsUser, runAsGroup, the image's user, and Docker's setting.
        type Case = (Option<i64>, Option<i64>, &'static str, Option<&'static str>);
        let cases: [Case; 8] = [
            (None, None, "1000:2000", None),
            (Some(5), None, "1000:2000", Some("5")),
            (Some(5), Some(6), "1000:2000", Some("5:6")),
            (None, Some(6), "1000:2000", Some("1000:6")),
            (None, Some(6), "1000", Some("1000:6")),
            (None, Some(6), "app:staff", Some("app:6")),
            (None, Some(6), "", Some("0:6")),
            (None, Some(6), ":50", Some("0:6")),
        ];
        for (user, group, image, expected) in cases {
            let got = of(&spec(user, group, false), Some(image));
            assert_eq!(got.as_ref().map(Option::as_deref), Ok(expected), "{user:?} {group:?} {image:?}");
        }
    }

    #[test]
    fn a_container_that_may_run_as_root_is_refused_under_run_as_non_root() {
        let place = "(pod: \"web_shop(u1)\", container: c)";
        let refused = |user, image| of(&spec(user, None, true), Some(image)).expect_err("it may be root");
        let breaks = format!("container's runAsUser breaks non-root policy {place}");
        assert_eq!(refused(Some(0), "1000"), breaks);
        let root = format!("container has runAsNonRoot and image will run as root {place}");
        for image in ["", "0", "0:1000", "00", ":1000"] {
            assert_eq!(refused(None, image), root, "{image:?}");
        }
        for image in ["root", "app"] {
            let named = format!(
                "container has runAsNonRoot and image has non-numeric user ({image}), cannot verify user is non-root {place}"
            );
            assert_eq!(refused(None, image), named);
        }
        let allowed = |user, group, image| of(&spec(user, group, true), Some(image)).expect("it is not root");
        assert_eq!(allowed(None, None, "1000:50").as_deref(), Some("1000:50"));
        assert_eq!(allowed(None, Some(6), "1000:50").as_deref(), Some("1000:6"));
        assert_eq!(allowed(Some(7), None, "root").as_deref(), Some("7"));
    }
}
