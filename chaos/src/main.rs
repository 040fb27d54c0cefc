//! `chaos`: breaks a quorum of real processes for a while, and checks what its clients saw.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use quorate_chaos::checker::Status;
use quorate_chaos::run::{self, Options};
use quorate_chaos::schedule::Kind;
use quorate_chaos::verdict;
use tokio_util::sync::CancellationToken;

/// Breaks a quorum of real processes for a while, and checks what its clients saw.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Args {
    /// How long faults come.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Which faults come when; drawn at random when it is not given.
    #[arg(long, env = "CHAOS_SEED")]
    seed: Option<u64>,
    /// Members of the quorum.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// The only faults that come.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Clients of each sort.
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// A client's mean pause between two operations, in milliseconds.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// Where the report goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The members' log level.
    #[arg(long, default_value = "info,openraft=warn")]
    log_level: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match start(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn start(args: Args) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(chaos(args))
}

async fn chaos(args: Args) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let directory = tempfile::Builder::new().prefix("quorate-chaos-").tempdir()?;
    let out = args.out.unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-chaos-report-{seed}")));
    std::fs::create_dir_all(out.join("logs"))?;
    let options = Options {
        seed,
        members: args.members,
        duration: Duration::from_secs_f64(args.minutes * 60.0),
        kinds: if args.faults.is_empty() { Kind::ALL.to_vec() } else { args.faults },
        clients: args.clients,
        pause: Duration::from_millis(args.pause_ms),
        binary: run::binary_beside(&std::env::current_exe()?)?,
        directory: directory.path().to_owned(),
        logs: out.join("logs"),
        log_level: args.log_level,
    };
    let recorded = run::run(&options, CancellationToken::new()).await?;
    say(&format!("seed {seed}: {} operations", recorded.history.operations.len()));
    for fault in &recorded.account.injected {
        say(&format!("{:>9} {:>9} {}", fault.from / 1000, fault.to / 1000, fault.text));
    }
    let checks = verdict::judge(&recorded, options.members, 10_000_000, Vec::new());
    for check in &checks {
        say(&format!("{:?} {} ({})", check.status, check.name, check.extent));
        for violation in &check.violations {
            say(&format!("    {violation}"));
        }
    }
    let is_violated = checks.iter().any(|check| check.status == Status::Violated);
    if is_violated {
        let mut file = std::io::BufWriter::new(std::fs::File::create(out.join("history.jsonl"))?);
        recorded.history.write_lines(&mut file)?;
    }
    Ok(!is_violated)
}

#[expect(clippy::print_stdout, reason = "the summary is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "it ends with this")]
fn complain(text: &str) {
    eprintln!("{text}");
}
