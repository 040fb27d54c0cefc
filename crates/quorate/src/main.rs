//! `quorate`: one binary for masters, workers and whole clusters. It contains only composition and configuration; the
//! composed crates implement the parts.

mod agent;
mod config;
mod graph;
mod install;
mod kubeconfig;
mod logging;
mod machine;
mod metrics;
mod process;
mod recover;
mod restore;
mod server;
mod show;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// Requests allocate many small pieces that are often freed by another thread than the one that allocated them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A container orchestrator that stays up.
#[derive(Parser)]
#[command(name = "quorate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a master: replicated store, API server, and (on the leader) scheduler and controllers.
    Server(Box<config::ServerArgs>),
    /// Create this master's data directory from a backup, to start a new quorum.
    Restore(Box<restore::RestoreArgs>),
    /// Make the last master of a lost quorum a quorum of its own. Asks for confirmation.
    Recover(Box<recover::RecoverArgs>),
    /// Run a worker: the node agent that runs pods.
    Agent(Box<config::AgentArgs>),
    /// Stop the containers of fenced pods when their agent cannot. Agents start this command.
    #[command(name = agent::WATCHDOG, hide = true)]
    FenceWatchdog(agent::WatchdogArgs),
    /// Install a master or worker on this machine, run by systemd.
    Install(install::InstallArgs),
    /// Undo `install`. The data stays unless --purge is given.
    Uninstall(install::UninstallArgs),
    /// Inspect the certificates of this machine.
    Pki {
        #[command(subcommand)]
        command: show::PkiCommand,
    },
    /// Show how the parts of a leader depend on each other.
    Graph {
        #[command(subcommand)]
        command: graph::GraphCommand,
    },
    /// Run a whole cluster on this machine, each member a process of its own.
    Up(up::UpArgs),
    /// Stop a cluster that `quorate up` started, and remove its containers.
    Down(up::DownArgs),
    /// The kubectl-style client; the same as `qctl`.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Ctl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    // Huge pages are disabled before the first allocation. The allocator would request them and use only a third of
    // their memory.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        logging::warning(format_args!("huge pages stay on, and more memory is taken than needed: {error}"));
    }
    let result = match Cli::parse().command {
        Command::Server(args) => server::main(*args),
        Command::Restore(args) => restore::main(*args),
        Command::Recover(args) => recover::main(*args),
        Command::Agent(args) => agent::main(*args),
        Command::FenceWatchdog(args) => agent::watchdog(args),
        Command::Install(args) => install::install(args),
        Command::Uninstall(args) => install::uninstall(args),
        Command::Pki { command } => show::main(command),
        Command::Graph { command } => graph::main(command),
        Command::Up(args) => up::main(args),
        Command::Down(args) => up::down(args),
        Command::Ctl { args } => return quorate_qctl::run(std::iter::once("qctl".into()).chain(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::fatal(&error);
            ExitCode::FAILURE
        }
    }
}
