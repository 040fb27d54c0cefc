//! `quorate restore`: creates a master's data directory from a backup.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use anyhow::Context;

use crate::config::ServerArgs;
use crate::logging;
use crate::server::{STORE_DIRECTORY, member};

#[derive(clap::Args, Clone, Debug)]
pub struct RestoreArgs {
    /// Backup file written by `qctl backup` or `etcdctl snapshot save`. Use the same file for every master.
    backup: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn main(args: RestoreArgs) -> anyhow::Result<()> {
    logging::start(logging::STORE_ERRORS_ONLY)?;
    let config = args.server.resolve()?;
    let name = args.backup.display();
    let backup = File::open(&args.backup).with_context(|| format!("cannot open {name}"))?;
    let data_dir = config.data_dir.join(STORE_DIRECTORY);
    let members: Vec<_> = config.founders.iter().map(member).collect();
    let own =
        config.founder().map(member).context("a restored quorum needs founding members: list them in `members`")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let restoring = quorate_store::raft::restore(BufReader::new(backup), &data_dir, &own, &members);
    let manifest = runtime.block_on(restoring).with_context(|| format!("cannot restore {name}"))?;
    let next = match members.len() - 1 {
        0 => "start it".to_owned(),
        others => format!("restore the other {others} masters from the same file, then start them all"),
    };
    let text = format!("{} restored at revision {} for {}; {next}\n", data_dir.display(), manifest.revision, own.name);
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}
