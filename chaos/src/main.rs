//! `chaos`: breaks a quorum of real processes and its workers for a while, and checks what its clients saw.

use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nix::unistd::geteuid;
use quorate_chaos::cluster::{Engine, Workers, mounts};
use quorate_chaos::fault::Kind;
use quorate_chaos::report::{self, Report};
use quorate_chaos::run::{self, Options, Recorded};
use quorate_chaos::verdict;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Breaks a quorum of real processes and its workers for a while, and checks what its clients saw and what runs. The
/// exit code is 1 after a violation.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Args {
    /// How long faults are injected.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seed of the fault schedule; random when not given.
    #[arg(long, env = "CHAOS_SEED")]
    seed: Option<u64>,
    /// Members of the quorum: 1, 3, 5 or 7.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Hollow workers: agents whose containers are files.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Workers on Docker. [default: 1 if a Docker engine answers]
    #[arg(long)]
    docker_workers: Option<usize>,
    /// Kinds of faults to inject; all when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Number of clients of each type.
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// Mean pause of a client between two operations, in milliseconds.
    #[arg(long, default_value_t = 25)]
    pause_ms: u64,
    /// Longest time that a connected majority may go without accepting a write, in seconds.
    #[arg(long, default_value_t = 10)]
    recover_within: u64,
    /// Longest time that Deployments and their pods may take to reach their desired state after the last fault, in
    /// seconds.
    #[arg(long, default_value_t = 120)]
    settle_within: u64,
    /// Directory for the report and, after a violation, for history, logs and data. [default: a directory below the one
    /// for temporary files]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep history, logs and data even without a violation.
    #[arg(long)]
    keep: bool,
    /// Log level of members and agents.
    #[arg(long, default_value = "info,openraft=warn")]
    log_level: String,
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn start(args: &Args) -> anyhow::Result<bool> {
    if geteuid().is_root()
        && let Err(error) = mounts::isolate()
    {
        complain(&format!("mounts are left behind if this process is killed: {error}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(chaos(args))
}

/// Runs the chaos test, checks the history and writes the report. Returns whether there was no violation.
async fn chaos(args: &Args) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let out = args.out.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-chaos-{seed}")));
    let (directory, logs) = (out.join("cluster"), out.join("logs"));
    for dir in [&directory, &logs] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let cluster = format!("chaos-{seed}-{}", std::process::id());
    let engine = engine(args, &cluster).await?;
    let docker = if engine.is_some() { args.docker_workers.unwrap_or(1) } else { 0 };
    let workers = Workers { hollow: args.workers, docker, cluster };
    let options = Options {
        seed,
        members: args.members,
        workers,
        engine,
        settle_within: Duration::from_secs(args.settle_within),
        duration: Duration::from_secs_f64(args.minutes * 60.0),
        kinds: if args.faults.is_empty() { Kind::ALL.to_vec() } else { args.faults.clone() },
        clients: args.clients,
        pause: Duration::from_millis(args.pause_ms),
        binary: run::binary_beside(&std::env::current_exe()?)?,
        directory: directory.canonicalize()?,
        logs: logs.canonicalize()?,
        log_level: args.log_level.clone(),
    };
    say(&format!(
        "seed {seed}, {} members, {} hollow workers, {docker} on Docker, {} s of faults",
        args.members,
        args.workers,
        options.duration.as_secs()
    ));
    let recorded = run::run(&options, abort_on_signal()?).await;
    let recorded = recorded.with_context(|| format!("the run failed; logs are in {}", logs.display()))?;
    let is_violated = judge(args, &recorded, seed, docker, &out)?;
    if !is_violated && !args.keep {
        fs::remove_dir_all(&directory)?;
        fs::remove_dir_all(&logs)?;
    }
    say(&format!("report: {}", out.join("report.html").display()));
    Ok(!is_violated)
}

/// Returns the engine for Docker workers. `None` when the run has no Docker workers: none were asked for, or no engine
/// answers and no number was given.
async fn engine(args: &Args, cluster: &str) -> anyhow::Result<Option<Engine>> {
    match args.docker_workers {
        Some(0) => Ok(None),
        // Without hollow workers the run tests the quorum alone.
        None if args.workers == 0 => Ok(None),
        Some(_) => Ok(Some(Engine::find(cluster.to_owned()).await.context("cannot run workers on Docker")?)),
        None => match Engine::find(cluster.to_owned()).await {
            Ok(engine) => Ok(Some(engine)),
            Err(error) => {
                complain(&format!("no workers on Docker: {error:#}"));
                Ok(None)
            }
        },
    }
}

/// Writes the report and, after a violation, the history. Returns whether there was a violation.
fn judge(args: &Args, recorded: &Recorded, seed: u64, docker: usize, out: &Path) -> anyhow::Result<bool> {
    let panics = panics(&out.join("logs"))?;
    let checks = verdict::judge(recorded, args.members, args.recover_within * 1_000_000, panics);
    let setting = [
        ("members", args.members.to_string()),
        ("workers", args.workers.to_string()),
        ("docker-workers", docker.to_string()),
        ("minutes", args.minutes.to_string()),
        ("clients", args.clients.to_string()),
        ("pause-ms", args.pause_ms.to_string()),
    ];
    let faults: Vec<String> = args.faults.iter().map(|kind| kind.name()).collect();
    let faults = (!faults.is_empty()).then(|| ("faults", faults.join(",")));
    let mut report = Report {
        seed,
        members: args.members,
        workers: args.workers + docker,
        setting: setting.into_iter().chain(faults).map(|(name, value)| (name.to_owned(), value)).collect(),
        checks: &checks,
        operations: &recorded.history.operations,
        account: &recorded.account,
        leaders: &recorded.leaders,
        end: recorded.healed,
        left_out: &recorded.left_out,
        kept: None,
    };
    let is_violated = report.is_violated();
    if is_violated || args.keep {
        let mut file = BufWriter::new(fs::File::create(out.join("history.jsonl"))?);
        recorded.history.write_lines(&mut file)?;
        fs::write(out.join("faults.json"), serde_json::to_vec_pretty(&recorded.account)?)?;
        report.kept = Some(format!("{}: history.jsonl, faults.json, logs, cluster", out.display()));
    }
    fs::write(out.join("report.html"), report::page(&report))?;
    say(&report::summary(&report));
    if let Some(kept) = &report.kept {
        say(&format!("kept in {kept}"));
    }
    Ok(is_violated)
}

/// The panics in the logs of members and agents.
fn panics(logs: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(logs)? {
        let path = entry?.path();
        let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
        let lines: Vec<&str> = text.lines().collect();
        let places = lines.iter().enumerate().filter(|(_, line)| line.contains("panicked at"));
        found.extend(
            places.map(|(i, _)| format!("{}: {}", path.display(), lines[i..lines.len().min(i + 3)].join("\n"))),
        );
    }
    Ok(found)
}

/// Returns a token that is cancelled on SIGINT and SIGTERM, so that the run shuts down cleanly.
fn abort_on_signal() -> anyhow::Result<CancellationToken> {
    let abort = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let fired = abort.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        fired.cancel();
    });
    Ok(abort)
}

#[expect(clippy::print_stdout, reason = "the summary is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "errors of the command go to its standard error")]
fn complain(text: &str) {
    eprintln!("{text}");
}
