//! `bench etcd`: etcd and Quorate under the same load, through the same client, on the same disk, in alternating
//! rounds. `stats`, `table` and `chart` evaluate the figures and are pure; `quorum` and `process` run the members; the
//! other modules are workloads.

mod chart;
mod clients;
mod compaction;
mod content;
mod failover;
mod load;
mod preload;
pub mod process;
mod quorum;
mod stats;
mod table;
mod watch;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Report;
use load::{At, Load, Operation, READ_VALUE_BYTES, Timing};
use quorum::{Quorum, Setup};
use stats::{Finding, Results, Summary, System, Unit};

/// Numbers of clients of gets, mixes and ranges. A flag sets those of puts.
const GET_CLIENTS: [usize; 3] = [1, 64, 256];
const MIX_CLIENTS: usize = 64;
const RANGE_CLIENTS: usize = 16;
const WARM_UP: Duration = Duration::from_secs(1);
/// Warm-up of the watch workload, in which buffers and pools grow to their usual size.
const WATCH_WARM_UP: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub struct Args {
    /// Number of rounds. The order of etcd and Quorate alternates between rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Workloads to run; all when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Numbers of concurrent clients of puts; each number is one measurement.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256, 1000])]
    clients: Vec<usize>,
    /// Sizes of the values of puts in bytes; each size is one measurement.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 4096])]
    value_bytes: Vec<usize>,
    /// Number of keys of the preload. A million keys take one or two minutes per system and round.
    #[arg(long, default_value_t = 1_000_000)]
    preload_keys: u64,
    /// Number of times the leader is killed, in all rounds together.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Write etcd.json and etcd.svg to this directory.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Parent of the members' data directories. Its disk decides the cost of a sync.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// The etcd program.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    Put,
    Get,
    Mix,
    Range,
    Watch,
    Compaction,
    Preload,
    Failover,
}

/// Workload on one fresh quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scenario {
    /// Puts on an empty keyspace.
    Puts(Load),
    /// Reads on a filled keyspace, one load after the other.
    Reads(Vec<Load>),
    Watch,
    Compaction,
    Preload,
    Failover,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scenario::Puts(load) => load.fmt(f),
            Scenario::Reads(loads) => write!(f, "{} loads of reads", loads.len()),
            Scenario::Watch => f.write_str("watch"),
            Scenario::Compaction => f.write_str("compaction"),
            Scenario::Preload => f.write_str("preload"),
            Scenario::Failover => f.write_str("failover"),
        }
    }
}

#[derive(Serialize)]
struct Record<'a> {
    setting: &'a [(String, String)],
    summaries: Vec<Summary>,
    #[serde(flatten)]
    results: &'a Results,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    ensure!(args.rounds > 0 && args.seconds > 0, "at least one round and one second");
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (mut results, mut failed) = (Results::default(), 0);
    // Dropping the measurement kills the members and removes their data.
    let is_complete = tokio::select! {
        measured = measure(&args, &mut results, &mut failed) => measured.map(|()| true)?,
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
    };
    ensure!(is_complete || !results.rows.is_empty(), "interrupted before anything was measured");
    let mut report = table::report(&results);
    report.set("rounds", args.rounds);
    report.set("seconds", args.seconds);
    report.set("connections", format!("min(clients,{})", clients::MAX_CONNECTIONS));
    report.set("cpus", std::thread::available_parallelism()?);
    if let Some(other) = results.other_cpus() {
        // Figures of a machine with other load are not reliable, so the report shows that load.
        report.set("other-cpus", format!("{:.2}({:.2}-{:.2})", other.median, other.min, other.max));
    }
    if failed > 0 {
        report.set("failed", failed);
    }
    if !is_complete {
        report.set("interrupted", true);
    }
    if let Some(out) = &args.out {
        write(out, &results, &report)?;
    }
    Ok(report)
}

fn write(out: &Path, results: &Results, report: &Report) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let setting: Vec<_> = report.setting.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let summaries = results.rows.iter().map(Summary::of).collect();
    let record = Record { setting: &report.setting, summaries, results };
    fs::write(out.join("etcd.json"), serde_json::to_vec_pretty(&record)?)?;
    fs::write(out.join("etcd.svg"), chart::svg(results, &setting.join(" ")))?;
    Ok(())
}

/// Runs all rounds; `failed` counts scenarios that failed as a whole.
async fn measure(args: &Args, results: &mut Results, failed: &mut usize) -> anyhow::Result<()> {
    let setup = Setup { etcd: args.etcd.clone(), dir: args.dir.clone() };
    for round in 0..args.rounds {
        let mut systems = System::BOTH;
        systems.rotate_left(round % 2);
        for scenario in scenarios(args) {
            for system in systems {
                progress(format!("round {}/{}: {}, {scenario}", round + 1, args.rounds, system.name()));
                // Unwritten pages of the previous scenario must not slow this one down.
                tokio::task::spawn_blocking(nix::unistd::sync).await?;
                match run_scenario(&scenario, system, &setup, args, round).await {
                    Ok(findings) => {
                        for finding in findings {
                            print_finding(&finding);
                            results.add(system, round, finding);
                        }
                    }
                    Err(error) => {
                        *failed += 1;
                        progress(format!("  failed: {error:#}"));
                    }
                }
            }
        }
    }
    Ok(())
}

fn scenarios(args: &Args) -> Vec<Scenario> {
    let wanted = |workload| args.only.is_empty() || args.only.contains(&workload);
    let load = |operation, clients| Load { operation, clients, value_bytes: READ_VALUE_BYTES, at: At::All };
    let mut scenarios = Vec::new();
    if wanted(Workload::Put) {
        for &value_bytes in &args.value_bytes {
            for &clients in &args.clients {
                let put = Load { value_bytes, ..load(Operation::Put, clients) };
                scenarios.push(Scenario::Puts(put));
                if clients == 1 {
                    scenarios.push(Scenario::Puts(Load { at: At::Follower, ..put }));
                }
            }
        }
    }
    let mut reads = Vec::new();
    if wanted(Workload::Get) {
        reads.extend(GET_CLIENTS.map(|clients| load(Operation::Get, clients)));
        reads.extend(GET_CLIENTS.map(|clients| load(Operation::SerializableGet, clients)));
    }
    if wanted(Workload::Range) {
        reads.push(load(Operation::Range, RANGE_CLIENTS));
    }
    if wanted(Workload::Mix) {
        reads.push(load(Operation::Mix, MIX_CLIENTS));
    }
    if !reads.is_empty() {
        scenarios.push(Scenario::Reads(reads));
    }
    let others = [
        (Workload::Watch, Scenario::Watch),
        (Workload::Compaction, Scenario::Compaction),
        (Workload::Preload, Scenario::Preload),
        (Workload::Failover, Scenario::Failover),
    ];
    scenarios.extend(others.into_iter().filter(|(workload, _)| wanted(*workload)).map(|(_, scenario)| scenario));
    scenarios
}

/// Runs a scenario on a fresh quorum.
async fn run_scenario(
    scenario: &Scenario,
    system: System,
    setup: &Setup,
    args: &Args,
    round: usize,
) -> anyhow::Result<Vec<Finding>> {
    let timing = Timing { warm_up: WARM_UP, length: Duration::from_secs(args.seconds) };
    let mut quorum = Quorum::start(system, setup).await?;
    match scenario {
        Scenario::Puts(load) => loads(&quorum, std::slice::from_ref(load), timing).await,
        Scenario::Reads(reads) => {
            load::fill(&quorum, content::KEYS).await?;
            loads(&quorum, reads, timing).await
        }
        Scenario::Watch => Ok(vec![watch::run(&quorum, Timing { warm_up: WATCH_WARM_UP, ..timing }).await?]),
        Scenario::Compaction => compaction::run(&quorum, timing).await,
        Scenario::Preload => preload::run(&mut quorum, args.preload_keys).await,
        Scenario::Failover => Ok(vec![failover::run(&mut quorum, share(args.kills, args.rounds, round)).await?]),
    }
}

async fn loads(quorum: &Quorum, loads: &[Load], timing: Timing) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for load in loads {
        let sample = load::run(quorum, *load, timing).await?;
        findings.push(Finding { row: load.to_string(), unit: Unit::PerSecond, sample });
    }
    Ok(findings)
}

/// Share of a total that belongs to this round.
fn share(of: usize, rounds: usize, round: usize) -> usize {
    of / rounds + usize::from(round < of % rounds)
}

fn print_finding(finding: &Finding) {
    let values: Vec<_> = finding.sample.values.iter().map(|value| table::value(*value, finding.unit)).collect();
    progress(format!("  {} {} {}", finding.row.trim(), values.join(" "), finding.unit.name()));
}

#[expect(clippy::print_stderr, reason = "the report alone goes to standard output")]
fn progress(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn selected(flags: &[&str]) -> Vec<Scenario> {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        scenarios(&Command::parse_from([&["bench"], flags].concat()).args)
    }

    #[test]
    fn only_selected_workloads_run() {
        assert_eq!(selected(&["--only", "watch"]), [Scenario::Watch]);
        let puts = selected(&["--only", "put", "--clients", "1,64"]);
        assert_eq!(puts.len(), 6, "two sizes of two numbers of clients, and a lone one at a follower");
        assert_eq!(selected(&["--only", "put", "--clients", "64", "--value-bytes", "256"]).len(), 1);
        let reads = selected(&["--only", "mix"]);
        assert!(matches!(&reads[..], [Scenario::Reads(loads)] if loads.len() == 1));
        assert_eq!(selected(&["--clients", "64", "--value-bytes", "256"]).len(), 6);
    }

    #[test]
    fn the_shares_of_all_rounds_add_up() {
        assert_eq!((0..3).map(|round| share(20, 3, round)).collect::<Vec<_>>(), [7, 7, 6]);
    }
}
