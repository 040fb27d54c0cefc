//! Properties and resources of this machine.

use std::path::Path;

/// Properties that are measured once, when the agent starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub machine_id: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

/// Resources that may run low while pods run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headroom {
    pub memory_available_bytes: u64,
    pub disk_available_percent: u64,
    pub pids_available: u64,
}

impl Machine {
    pub(crate) fn measure(data_dir: &Path) -> Self {
        let meminfo = read("/proc/meminfo");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: kilobytes(&meminfo, "MemTotal:") * 1024,
            disk_bytes: disk(data_dir).map_or(0, |(total, _)| total),
            machine_id: read("/etc/machine-id").trim().to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            os_image: os_image(&read("/etc/os-release")),
        }
    }
}

impl Headroom {
    pub(crate) fn measure(data_dir: &Path) -> Self {
        let percent = disk(data_dir).and_then(|(total, available)| (available * 100).checked_div(total));
        let pid_max: u64 = read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(32768);
        // The fourth field of loadavg is "runnable/existing" scheduling entities.
        let loadavg = read("/proc/loadavg");
        let existing = loadavg.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok());
        Headroom {
            memory_available_bytes: kilobytes(&read("/proc/meminfo"), "MemAvailable:") * 1024,
            disk_available_percent: percent.unwrap_or(100),
            pids_available: pid_max.saturating_sub(existing.unwrap_or(0)),
        }
    }
}

/// Reads a file of `/proc` or `/etc`. A missing file reads as empty.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::debug!(path, error = %error, "cannot read a property of this machine");
        String::new()
    })
}

/// Whether this process has the capability with this number in `capabilities(7)`.
fn has_capability(number: u32) -> bool {
    let status = read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    effective.is_some_and(|capabilities| capabilities & (1 << number) != 0)
}

/// Whether the agent may mount file systems.
pub(crate) fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    has_capability(CAP_SYS_ADMIN)
}

/// Whether the agent may lower the OOM score of a process below zero.
pub(crate) fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    has_capability(CAP_SYS_RESOURCE)
}

fn kilobytes(meminfo: &str, field: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Total and available bytes of the file system of `path`.
fn disk(path: &Path) -> Option<(u64, u64)> {
    match nix::sys::statvfs::statvfs(path) {
        Ok(stat) => Some((stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size())),
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %error, "cannot measure the disk");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_fields_are_parsed() {
        let meminfo = "MemTotal:       24682208 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(kilobytes(meminfo, "MemTotal:"), 24_682_208);
        assert_eq!(kilobytes(meminfo, "Swap:"), 0);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_image(""), "Linux");
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let machine = Machine::measure(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.disk_bytes > 0, "{machine:?}");
    }
}
