//! Parses Docker's security options. Pure.

use crate::runtime::Capabilities;

/// Reads options as `docker info` lists them: `name=seccomp,profile=default`.
pub(super) fn of(options: &[String]) -> Capabilities {
    let find = |name: &str| {
        let mut parts = options.iter().map(|option| option.split(',').collect::<Vec<_>>());
        parts.find(|parts| parts.iter().any(|part| *part == format!("name={name}") || *part == name))
    };
    Capabilities {
        app_armor: find("apparmor").is_some(),
        se_linux: find("selinux").is_some(),
        // An engine can be configured to filter nothing by default.
        seccomp: find("seccomp").is_some_and(|parts| !parts.contains(&"profile=unconfined")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_by_name() {
        let of = |options: &[&str]| of(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]), Capabilities::default());
        let seccomp = Capabilities { seccomp: true, ..Capabilities::default() };
        assert_eq!(of(&["name=seccomp,profile=default", "name=cgroupns"]), seccomp);
        assert_eq!(of(&["name=seccomp,profile=builtin"]), seccomp);
        assert_eq!(of(&["name=seccomp,profile=unconfined"]), Capabilities::default());
        let all = Capabilities { app_armor: true, se_linux: true, seccomp: true };
        assert_eq!(of(&["name=apparmor", "name=selinux", "name=seccomp,profile=default"]), all);
    }
}
