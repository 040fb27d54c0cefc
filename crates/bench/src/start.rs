//! `bench start`: time of `quorate up` on an empty data directory, and the memory of an idle member.

use crate::cluster::{Cluster, resident_mib};
use crate::report::{Report, median, seconds};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 1)]
    masters: usize,
    #[arg(long, default_value_t = 10)]
    rounds: usize,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let mut report = Report::new("start", &["quorate up to", "median s", "worst s", "idle master RSS MiB"]);
    report.set("masters", args.masters);
    report.set("rounds", args.rounds);
    let (mut times, mut memory) = (Vec::new(), 0);
    for _ in 0..args.rounds {
        let cluster = Cluster::start(args.masters, 0, "hollow").await?;
        times.push(cluster.ready_after);
        for master in cluster.with_role("master")? {
            memory = memory.max(resident_mib(master.pid)?);
        }
        cluster.stop().await?;
    }
    let worst = times.iter().max().copied().unwrap_or_default();
    report.row(["every API ready".to_owned(), seconds(median(&times)), seconds(worst), memory.to_string()]);
    Ok(report)
}
