//! `quorate`: one binary for masters, workers and whole clusters. Composition and configuration only; what the parts
//! do lives in the crates that are composed here.

mod agent;
mod config;
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

/// Requests are made of many small pieces that are often freed by another thread than the one that made them.
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
    /// Run one master: replicated store, API server, and (on the leader) scheduler and controllers.
    Server(Box<config::ServerArgs>),
    /// Make this master's data directory out of a backup: the beginning of a new quorum.
    Restore(Box<restore::RestoreArgs>),
    /// Make the one master that is left of a lost quorum a quorum of its own. Asks first.
    Recover(Box<recover::RecoverArgs>),
    /// Run one worker: the node agent that runs pods.
    Agent(Box<config::AgentArgs>),
    /// Stop the containers of fenced pods when their agent cannot. Agents start it.
    #[command(name = agent::WATCHDOG, hide = true)]
    FenceWatchdog(agent::WatchdogArgs),
    /// Have systemd run this machine as a master or a worker.
    Install(install::InstallArgs),
    /// Undo `install`; the data stays unless --purge is given.
    Uninstall(install::UninstallArgs),
    /// Look at the certificates of this machine.
    Pki {
        #[command(subcommand)]
        command: show::PkiCommand,
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
    // Before anything is allocated, for the allocator asks for huge pages, a third of which would be used.
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
