//! The timeline as SVG: faults by member, leaders, throughput and latencies.

use std::fmt::Write;

use super::Report;
use super::figures::{quantile, sorted};
use super::page::escape;
use crate::fault::Kind;
use crate::history::{Micros, Operation, Outcome};
use crate::nemesis::{Injected, ServiceLevel};
use crate::world::{Effect, MemberIndex};

/// Minimum width. The timeline of a long run is wider and scrolls.
const WIDTH: f64 = 1080.0;
const WIDTH_OF_SECOND: f64 = 3.0;
/// Width of the lanes' names, which do not scroll.
const NAMES: f64 = 100.0;
const LANE: f64 = 34.0;
/// Height of the faults in a lane; the leader is drawn below them.
const FAULTS: f64 = 24.0;
const CHART: f64 = 150.0;
const GAP: f64 = 28.0;
const TOP: f64 = 24.0;
/// Approximate width of a letter.
const LETTER: f64 = 6.2;
/// Powers of ten on the latency axis, from 0.1 ms to 10 s.
const DECADES: f64 = 5.0;
const LEAST_US: f64 = 100.0;
const LATENCIES: [(Micros, &str); 4] = [(1000, "1 ms"), (10_000, "10 ms"), (100_000, "100 ms"), (1_000_000, "1 s")];

/// Maps times to positions.
struct Scale {
    end: Micros,
    width: f64,
}

impl Scale {
    fn x(&self, at: Micros) -> f64 {
        self.width * at.min(self.end) as f64 / self.end.max(1) as f64
    }
}

/// Draws the timeline: names on the left, and the scrolling part beside them.
#[must_use]
pub fn timeline(report: &Report) -> String {
    let last = report.operations.iter().map(|operation| operation.returned).max().unwrap_or(0);
    let end = last.max(report.end);
    let scale = Scale { end, width: WIDTH.max(end as f64 / 1e6 * WIDTH_OF_SECOND) };
    let lanes = TOP + LANE * (report.members + 1 + report.workers) as f64;
    let (throughput, latency) = (lanes + GAP, lanes + CHART + 2.0 * GAP);
    let height = latency + CHART + GAP;
    let bins = Bins::of(report.operations, scale.end);
    let mut names = Svg::default();
    names.names(report, &bins, throughput, latency);
    let mut svg = Svg::default();
    svg.service(report, &scale, height - GAP);
    svg.axis(&scale, height - GAP);
    svg.faults(report, &scale);
    svg.leaders(report, &scale);
    svg.throughput(&bins, &scale, throughput);
    svg.latency(&bins, &scale, latency);
    format!(
        "<div class=\"timeline\">{}<div class=\"scroll\">{}</div></div>",
        names.of_size(NAMES, height),
        svg.of_size(scale.width, height)
    )
}

/// Operations grouped by the time of their end.
struct Bins {
    length: Micros,
    bins: Vec<Bin>,
}

const BINS: Micros = 1200;
const SHORTEST_BIN: Micros = 250_000;

#[derive(Default)]
struct Bin {
    latencies: Vec<Micros>,
    refused: usize,
    unknown: usize,
}

impl Bins {
    fn of(operations: &[Operation], end: Micros) -> Bins {
        let length = (end / BINS).max(SHORTEST_BIN);
        let mut bins: Vec<Bin> = (0..=end / length).map(|_| Bin::default()).collect();
        for operation in operations {
            let Ok(place) = usize::try_from(operation.returned / length) else { continue };
            let Some(bin) = bins.get_mut(place) else { continue };
            match operation.outcome {
                Outcome::Done { .. } => bin.latencies.push(operation.returned - operation.called),
                Outcome::Refused { .. } => bin.refused += 1,
                Outcome::Unknown { .. } => bin.unknown += 1,
            }
        }
        for bin in &mut bins {
            bin.latencies = sorted(std::mem::take(&mut bin.latencies));
        }
        Bins { length, bins }
    }

    /// Highest rate of operations, whatever their outcome.
    fn most_per_second(&self) -> f64 {
        let all = |bin: &Bin| bin.latencies.len() + bin.refused + bin.unknown;
        self.bins.iter().map(all).max().unwrap_or(0).max(1) as f64 / (self.length as f64 / 1e6)
    }

    fn iter(&self) -> impl Iterator<Item = (Micros, &Bin)> {
        self.bins.iter().enumerate().map(|(place, bin)| (place as Micros * self.length, bin))
    }
}

#[derive(Default)]
struct Svg(String);

impl Svg {
    fn add(&mut self, element: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        self.0.write_fmt(element).ok();
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    fn bar(&mut self, (from, to): (f64, f64), (y, height): (f64, f64), class: &str, title: &str) {
        let width = (to - from).max(1.5);
        self.add(format_args!(
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\">\
             <title>{}</title></rect>",
            escape(title)
        ));
    }

    fn of_size(self, width: f64, height: f64) -> String {
        format!(
            "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             xmlns=\"http://www.w3.org/2000/svg\" role=\"img\">{}</svg>",
            self.0
        )
    }

    fn names(&mut self, report: &Report, bins: &Bins, throughput: f64, latency: f64) {
        for member in 0..report.members {
            self.text(0.0, lane(member) + 17.0, "name", &format!("m{}", member + 1));
        }
        self.text(0.0, lane(report.members) + 17.0, "name", "network");
        for worker in 0..report.workers {
            self.text(0.0, lane(report.members + 1 + worker) + 17.0, "name", &format!("w{}", worker + 1));
        }
        self.text(0.0, throughput + 10.0, "name", "operations/s");
        self.text(0.0, throughput + 26.0, "small", &format!("{:.0} at most", bins.most_per_second()));
        self.text(0.0, latency + 10.0, "name", "latency");
        for (micros, name) in LATENCIES {
            self.text(58.0, height_of(micros, latency) + 4.0, "small", name);
        }
    }

    /// Shades the times of impossible or degraded service.
    fn service(&mut self, report: &Report, scale: &Scale, bottom: f64) {
        let changes = &report.account.changes;
        let ends = changes.iter().skip(1).map(|next| next.at).chain(std::iter::once(report.end));
        for (change, end) in changes.iter().zip(ends) {
            let (class, title) = match change.service {
                ServiceLevel::Required => continue,
                ServiceLevel::Degraded => ("degraded", "a majority under bad conditions"),
                ServiceLevel::Impossible => ("impossible", "no connected majority"),
            };
            self.bar((scale.x(change.at), scale.x(end)), (TOP, bottom - TOP), class, title);
        }
    }

    fn faults(&mut self, report: &Report, scale: &Scale) {
        for place in 0..=report.members + report.workers {
            self.faults_of(place, report, scale);
        }
        for death in &report.account.deaths {
            let title = format!("m{} ended at {:.2} s: {}", death.member + 1, death.at as f64 / 1e6, death.status);
            self.death(scale.x(death.at), lane(death.member), death.is_wanted, &title);
        }
        for death in &report.account.agent_deaths {
            let title = format!("w{} ended at {:.2} s: {}", death.worker + 1, death.at as f64 / 1e6, death.status);
            self.death(scale.x(death.at), lane(report.members + 1 + death.worker), death.is_wanted, &title);
        }
    }

    fn death(&mut self, x: f64, lane: f64, is_wanted: bool, title: &str) {
        let class = if is_wanted { "wanted" } else { "unwanted" };
        let y = lane + FAULTS / 2.0;
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" class=\"{class}\"><title>{}</title></circle>",
            escape(title)
        ));
    }

    /// Draws the faults of one lane; overlapping faults are stacked.
    fn faults_of(&mut self, place: usize, report: &Report, scale: &Scale) {
        let here = |injected: &&Injected| lanes_of(&injected.effect, report.members).contains(&place);
        let mut rows: Vec<Micros> = Vec::new();
        let mut drawn = Vec::new();
        for injected in report.account.injected.iter().filter(here) {
            let row = rows.iter().position(|end| *end <= injected.from).unwrap_or(rows.len());
            rows.resize(rows.len().max(row + 1), 0);
            rows[row] = injected.to;
            drawn.push((row, injected));
        }
        let height = FAULTS / rows.len().max(1) as f64;
        for (row, injected) in drawn {
            let seconds = (injected.to - injected.from) as f64 / 1e6;
            let title = format!("{} at {:.2} s for {seconds:.2} s", injected.text, injected.from as f64 / 1e6);
            let (from, to) = (scale.x(injected.from), scale.x(injected.to));
            let top = lane(place) + row as f64 * height;
            self.bar((from, to), (top + 1.0, height - 2.0), class(injected.kind), &title);
            let label = label(&injected.effect);
            if height >= 12.0 && to - from > LETTER * label.chars().count() as f64 + 6.0 {
                self.text(from + 4.0, top + height / 2.0 + 4.0, "label", &label);
            }
        }
    }

    fn leaders(&mut self, report: &Report, scale: &Scale) {
        let ends = report.leaders.iter().skip(1).map(|next| next.at).chain(std::iter::once(scale.end));
        for (led, end) in report.leaders.iter().zip(ends) {
            let title = format!("m{} leads in term {}", led.member + 1, led.term);
            self.bar((scale.x(led.at), scale.x(end)), (lane(led.member) + FAULTS + 1.0, 4.0), "leader", &title);
        }
    }

    fn throughput(&mut self, bins: &Bins, scale: &Scale, top: f64) {
        let seconds = bins.length as f64 / 1e6;
        let most = bins.most_per_second() * seconds;
        for (at, bin) in bins.iter() {
            let mut y = top + CHART;
            for (count, class) in [(bin.latencies.len(), "done"), (bin.refused, "refused"), (bin.unknown, "unknown")] {
                let height = CHART * count as f64 / most;
                y -= height;
                if count > 0 {
                    let title = format!("{:.0} {class}/s at {:.1} s", count as f64 / seconds, at as f64 / 1e6);
                    self.bar((scale.x(at), scale.x(at + bins.length)), (y, height), class, &title);
                }
            }
        }
    }

    fn latency(&mut self, bins: &Bins, scale: &Scale, top: f64) {
        for (micros, _) in LATENCIES {
            let (at, width) = (height_of(micros, top), scale.width);
            self.add(format_args!("<line x1=\"0\" x2=\"{width:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>"));
        }
        for (percent, class) in [(100, "p100"), (99, "p99"), (50, "p50")] {
            for (at, bin) in bins.iter().filter(|(_, bin)| !bin.latencies.is_empty()) {
                let value = quantile(&bin.latencies, percent);
                let name = if percent == 100 { "slowest".to_owned() } else { class.to_owned() };
                let title = format!("{name} {} ms at {:.1} s", super::figures::millis(value), at as f64 / 1e6);
                let place = (height_of(value, top) - 1.0, 2.0);
                self.bar((scale.x(at), scale.x(at + bins.length)), place, class, &title);
            }
        }
    }

    fn axis(&mut self, scale: &Scale, bottom: f64) {
        let seconds = scale.end / 1_000_000;
        let step = [1, 2, 5, 10, 30, 60, 120, 300, 600].into_iter().find(|step| seconds / step <= 20).unwrap_or(1800);
        for second in (0..=seconds).step_by(usize::try_from(step).unwrap_or(1)) {
            let x = scale.x(second * 1_000_000);
            self.add(format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\" class=\"grid\"/>"
            ));
            self.text(x - 8.0, 14.0, "small", &format!("{second} s"));
        }
    }
}

fn lane(place: usize) -> f64 {
    TOP + LANE * place as f64
}

/// Position of a latency in a chart that starts at `top`.
fn height_of(micros: Micros, top: f64) -> f64 {
    let decades = (micros as f64 / LEAST_US).max(1.0).log10().min(DECADES);
    top + CHART * (1.0 - decades / DECADES)
}

/// Lanes of a fault: the members, the network, and the workers, in this order.
fn lanes_of(effect: &Effect, members: usize) -> Vec<MemberIndex> {
    match effect {
        Effect::Down(met) | Effect::Lost(met) | Effect::PowerLost(met) | Effect::Ended(met) | Effect::Paused(met) => {
            met.clone()
        }
        Effect::Cut(_) | Effect::Poor(_) => vec![members],
        Effect::OtherLog(member)
        | Effect::Failpoint { member, .. }
        | Effect::SlowDisk { member, .. }
        | Effect::Clock { member, .. }
        | Effect::FullDisk(member)
        | Effect::Replaced(member)
        | Effect::FailingSync(member) => vec![*member],
        Effect::AgentsDown(workers) | Effect::AgentsEnded(workers) | Effect::AgentsPaused(workers) => {
            workers.iter().map(|worker| members + 1 + worker).collect()
        }
        Effect::MachineLost(worker)
        | Effect::CutOff { worker, .. }
        | Effect::ContainerKilled { worker, .. }
        | Effect::ContainerKilledInSecret { worker, .. }
        | Effect::AgentClock { worker, .. } => vec![members + 1 + worker],
    }
}

/// Label of a bar that is wide enough for it.
fn label(effect: &Effect) -> String {
    match effect {
        Effect::Down(_) => "kill -9".to_owned(),
        Effect::Lost(_) => "disk lost".to_owned(),
        Effect::Replaced(_) => "replaced".to_owned(),
        Effect::PowerLost(_) => "power loss".to_owned(),
        Effect::Ended(_) => "SIGTERM".to_owned(),
        Effect::OtherLog(_) => "other log version".to_owned(),
        Effect::Failpoint { failpoint, .. } => failpoint.to_string(),
        Effect::Paused(_) => "SIGSTOP".to_owned(),
        Effect::Cut(_) => effect.to_string(),
        Effect::Poor(quality) if quality.loss_percent > 0 => format!("{} % lost", quality.loss_percent),
        Effect::Poor(quality) => format!("{}±{} ms", quality.delay_ms, quality.jitter_ms),
        Effect::SlowDisk { sync_delay_ms, .. } => format!("fsync +{sync_delay_ms} ms"),
        Effect::FullDisk(_) => "disk full".to_owned(),
        Effect::FailingSync(_) => "fsync fails".to_owned(),
        Effect::Clock { offset_s, .. } | Effect::AgentClock { offset_s, .. } => {
            format!("clock {:+} h", offset_s / 3600)
        }
        Effect::AgentsDown(_) => "kill -9".to_owned(),
        Effect::AgentsEnded(_) => "SIGTERM".to_owned(),
        Effect::AgentsPaused(_) => "SIGSTOP".to_owned(),
        Effect::MachineLost(_) => "machine lost".to_owned(),
        Effect::CutOff { members, .. } => {
            let names: Vec<String> = members.iter().map(|member| format!("m{}", member + 1)).collect();
            format!("cut off from {}", names.join(", "))
        }
        Effect::ContainerKilled { .. } | Effect::ContainerKilledInSecret { .. } => "container killed".to_owned(),
    }
}

/// Class of a kind in the page's style.
pub fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill | Kind::LostDisks | Kind::AgentKill => "kill",
        Kind::PowerLoss => "power",
        Kind::Restart | Kind::AgentRestart => "restart",
        Kind::LogVersion => "version",
        Kind::Failpoint => "failpoint",
        Kind::Pause | Kind::AgentPause => "pause",
        Kind::Partition | Kind::WorkerPartition => "partition",
        Kind::Network => "network",
        Kind::SlowDisk | Kind::FullDisk | Kind::FailedSync => "disk",
        Kind::Clock | Kind::AgentClock => "clock",
        Kind::Replace => "replace",
        Kind::MachineLoss => "machine",
        Kind::ContainerKill | Kind::SecretKill => "container",
    }
}
