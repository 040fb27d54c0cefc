//! The timeline as SVG: faults by member, who leads, what was answered, and how quickly.

use std::fmt::Write;

use super::Report;
use super::figures::{quantile, sorted};
use super::page::escape;
use crate::history::{Micros, Operation, Outcome};
use crate::nemesis::ServiceLevel;
use crate::schedule::Kind;
use crate::world::{Effect, MemberIndex};

const WIDTH: f64 = 1160.0;
/// Left of it stand names.
const LEFT: f64 = 90.0;
const LANE: f64 = 26.0;
const CHART: f64 = 150.0;
const GAP: f64 = 24.0;
const TOP: f64 = 22.0;
/// Latencies are drawn from a tenth of a millisecond to ten seconds, by powers of ten.
const DECADES: f64 = 5.0;
const LEAST_US: f64 = 100.0;

/// Where a moment lies.
struct Scale {
    end: Micros,
}

impl Scale {
    fn x(&self, at: Micros) -> f64 {
        LEFT + (WIDTH - LEFT) * at.min(self.end) as f64 / self.end.max(1) as f64
    }
}

/// Draws it.
#[must_use]
pub fn timeline(report: &Report) -> String {
    let last = report.operations.iter().map(|operation| operation.returned).max().unwrap_or(0);
    let scale = Scale { end: last.max(report.end) };
    let lanes = TOP + LANE * (report.members + 1) as f64;
    let (throughput, latency) = (lanes + GAP, lanes + CHART + 2.0 * GAP);
    let height = latency + CHART + GAP;
    let mut svg = Svg::default();
    svg.service(report, &scale, height - GAP);
    svg.faults(report, &scale);
    svg.leaders(report, &scale);
    let bins = Bins::of(report.operations, scale.end);
    svg.throughput(&bins, &scale, throughput);
    svg.latency(&bins, &scale, latency);
    svg.axis(&scale, height - GAP);
    format!(
        "<svg viewBox=\"0 0 {} {height}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\">{}</svg>",
        WIDTH + 10.0,
        svg.0
    )
}

/// Operations by the time of their end.
struct Bins {
    length: Micros,
    bins: Vec<Bin>,
}

#[derive(Default)]
struct Bin {
    latencies: Vec<Micros>,
    refused: usize,
    unknown: usize,
}

impl Bins {
    fn of(operations: &[Operation], end: Micros) -> Bins {
        let length = (end / 300).max(100_000);
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

    fn iter(&self) -> impl Iterator<Item = (Micros, &Bin)> {
        self.bins.iter().enumerate().map(|(place, bin)| (place as Micros * self.length, bin))
    }
}

#[derive(Default)]
struct Svg(String);

impl Svg {
    fn add(&mut self, element: std::fmt::Arguments) {
        // Writing to a string does not fail.
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

    /// Shades the times at which nothing could be asked of the quorum, or not everything.
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
        for member in 0..report.members {
            self.text(4.0, lane(member) + 17.0, "name", &format!("m{}", member + 1));
        }
        self.text(4.0, lane(report.members) + 17.0, "name", "network");
        for injected in &report.account.injected {
            let seconds = (injected.to - injected.from) as f64 / 1e6;
            let title = format!("{} at {:.2} s for {seconds:.2} s", injected.text, injected.from as f64 / 1e6);
            for member in met(&injected.effect, report.members) {
                let place = (lane(member) + 3.0, LANE - 10.0);
                self.bar((scale.x(injected.from), scale.x(injected.to)), place, class(injected.kind), &title);
            }
        }
        for death in &report.account.deaths {
            let class = if death.is_wanted { "wanted" } else { "unwanted" };
            self.add(format_args!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" class=\"{class}\"><title>{}</title></circle>",
                scale.x(death.at),
                lane(death.member) + 11.0,
                escape(&format!("m{} ended by itself: {}", death.member + 1, death.status))
            ));
        }
    }

    fn leaders(&mut self, report: &Report, scale: &Scale) {
        let ends = report.leaders.iter().skip(1).map(|next| next.at).chain(std::iter::once(scale.end));
        for (led, end) in report.leaders.iter().zip(ends) {
            let title = format!("m{} leads in term {}", led.member + 1, led.term);
            self.bar((scale.x(led.at), scale.x(end)), (lane(led.member) + LANE - 6.0, 3.0), "leader", &title);
        }
    }

    fn throughput(&mut self, bins: &Bins, scale: &Scale, top: f64) {
        let seconds = bins.length as f64 / 1e6;
        let all = |bin: &Bin| bin.latencies.len() + bin.refused + bin.unknown;
        let most = bins.bins.iter().map(all).max().unwrap_or(0).max(1) as f64;
        self.text(4.0, top + 10.0, "name", "operations/s");
        self.text(4.0, top + 24.0, "small", &format!("{:.0} at most", most / seconds));
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
        self.text(4.0, top + 10.0, "name", "latency");
        let y = |micros: Micros| {
            let decades = (micros as f64 / LEAST_US).max(1.0).log10().min(DECADES);
            top + CHART * (1.0 - decades / DECADES)
        };
        for (micros, name) in [(1000, "1 ms"), (10_000, "10 ms"), (100_000, "100 ms"), (1_000_000, "1 s")] {
            let at = y(micros);
            self.add(format_args!("<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>"));
            self.text(LEFT - 46.0, at + 4.0, "small", name);
        }
        for (percent, class) in [(50, "p50"), (99, "p99"), (100, "p100")] {
            for (at, bin) in bins.iter().filter(|(_, bin)| !bin.latencies.is_empty()) {
                let value = quantile(&bin.latencies, percent);
                let title = format!("{class} {} ms at {:.1} s", super::figures::millis(value), at as f64 / 1e6);
                self.bar((scale.x(at), scale.x(at + bins.length)), (y(value) - 1.0, 2.0), class, &title);
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

/// The lanes that a fault is drawn on; the last one is the network's.
fn met(effect: &Effect, members: usize) -> Vec<MemberIndex> {
    match effect {
        Effect::Down(met) | Effect::Lost(met) | Effect::Paused(met) => met.clone(),
        Effect::Cut(_) | Effect::Poor(_) => vec![members],
        Effect::SlowDisk { member, .. } | Effect::Clock { member, .. } => vec![*member],
        Effect::FullDisk(member) | Effect::FailingSync(member) => vec![*member],
    }
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill | Kind::LostDisks => "kill",
        Kind::Pause => "pause",
        Kind::Partition => "partition",
        Kind::Network => "network",
        Kind::SlowDisk | Kind::FullDisk | Kind::FailedSync => "disk",
        Kind::Clock => "clock",
    }
}
