//! The systemd units.

use std::fmt;
use std::path::Path;

/// The service to install.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Agent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Server => "server",
            Role::Agent => "agent",
        })
    }
}

impl Role {
    /// Name of the unit.
    pub fn unit(self) -> &'static str {
        match self {
            Role::Server => "quorate-server.service",
            Role::Agent => "quorate-agent.service",
        }
    }

    /// Name of the configuration file.
    pub fn config(self) -> &'static str {
        match self {
            Role::Server => "server.toml",
            Role::Agent => "agent.toml",
        }
    }

    /// Describes what is lost with the data, as a part of a sentence.
    pub fn loss(self) -> &'static str {
        match self {
            Role::Server => {
                ": this master's copy of the state, and the authorities' keys. Remove it from the quorum first (`qctl quorum \
                 remove`)"
            }
            Role::Agent => ", and its containers with it. Drain it first (`qctl drain`, then `qctl delete node`)",
        }
    }
}

/// Returns the unit of a service. A master exits with an error when its disk fails, and the restart checks the disk.
pub fn text(role: Role, binary: &Path, config: &Path, docker: bool) -> String {
    let (binary, config) = (binary.display(), config.display());
    let (description, docker, limits) = match role {
        Role::Server => ("Quorate master", "", "LimitNOFILE=1048576\n"),
        // Containers outlive the agent, which adopts them after a restart. So does the watchdog, which stops fenced pods
        // while no agent runs: systemd ends the agent's own process only.
        Role::Agent if docker => {
            ("Quorate worker", " docker.service", "Delegate=yes\nKillMode=process\nLimitNOFILE=1048576\n")
        }
        Role::Agent => ("Quorate worker", "", "KillMode=process\nLimitNOFILE=1048576\n"),
    };
    format!(
        "[Unit]\n\
         Description={description}\n\
         Wants=network-online.target{docker}\n\
         After=network-online.target{docker}\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={binary} {role} --config {config}\n\
         Restart=always\n\
         RestartSec=2\n\
         TimeoutStopSec=60\n\
         {limits}\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}
