//! `quorate recover`: makes the last remaining master a quorum of its own.

use std::io::{self, BufRead, Write};

use anyhow::Context;
use quorate_store::raft::Recovery;

use crate::config::ServerArgs;
use crate::logging;
use crate::server::STORE_DIRECTORY;

#[derive(clap::Args, Clone, Debug)]
pub struct RecoverArgs {
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn main(args: RecoverArgs) -> anyhow::Result<()> {
    logging::start(logging::STORE_ERRORS_ONLY)?;
    let config = args.server.resolve()?;
    let store = config.data_dir.join(STORE_DIRECTORY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let recovery = runtime.block_on(Recovery::open(&store)).context("there is nothing to recover from")?;
    let mut output = io::stdout();
    output.write_all(warning(&recovery).as_bytes())?;
    if !args.yes {
        output.write_all(b"Type `yes` to continue: ")?;
        output.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        anyhow::ensure!(answer.trim() == "yes", "nothing was changed");
    }
    let name = recovery.member().name.clone();
    runtime.block_on(recovery.commit()).context("the master was not recovered")?;
    let add = command_to_add(config.managed.is_some());
    let text = format!(
        "{name} is now a quorum of its own. Start it, then add other masters with {add}. It ignores the other members of \
         the old quorum; remove their stores.\n"
    );
    output.write_all(text.as_bytes()).context("cannot write to standard output")
}

/// Returns the command that adds a master, depending on whether the masters issue their own certificates.
fn command_to_add(issues_certificates: bool) -> &'static str {
    if issues_certificates { "`qctl token create --role master`" } else { "`qctl quorum add`" }
}

fn warning(recovery: &Recovery) -> String {
    let names: Vec<_> = recovery.given_up().iter().map(|member| member.name.as_str()).collect();
    let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!(
        "{} becomes a quorum of its own, with its current state: revision {}, log up to {} (term {}).\n\
         - Given up: {others}. If a majority of the old quorum can still be started, do that instead.\n\
         - Lost: writes that were acknowledged to clients but did not reach this master before it stopped. This master \
         cannot know how many these are; a master that lagged behind lacks more. If several masters survive, recover the \
         one with the highest log term, and among those the one with the longest log.\n\
         - Kept: writes in its log take effect, even if they were never acknowledged.\n",
        recovery.member().name,
        recovery.revision(),
        recovery.last_index(),
        recovery.last_term(),
    )
}
