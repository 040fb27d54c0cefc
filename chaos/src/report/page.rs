//! The report as one HTML file without external resources.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::timeline::{self, timeline};
use super::{Report, sign};
use crate::checker::Status;
use crate::fault::Kind;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --ok: #1a7f37; --bad: #cf222e; --maybe: #9a6700 }
@media (prefers-color-scheme: dark) { :root { --ok: #3fb950; --bad: #ff7b72; --maybe: #d29922 } }
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 24px; margin: 0 } h2 { font-size: 17px; margin: 2em 0 .6em } code { font-size: 13px }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid var(--line); padding: .35em .6em;
text-align: left; vertical-align: top } th { font-weight: 600 } td.number { text-align: right; white-space: nowrap;
font-variant-numeric: tabular-nums }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; background: var(--soft); padding: .6em }
.passed { color: var(--ok); white-space: nowrap } .violated { color: var(--bad); font-weight: bold; white-space: nowrap }
.undecided { color: var(--maybe); white-space: nowrap } .quiet { opacity: .7 }
.tiles { display: flex; flex-wrap: wrap; gap: .8em; margin: 1.2em 0 } .tile { background: var(--soft); padding: .5em 1em;
border-radius: 6px } .tile b { display: block; font-size: 19px; font-variant-numeric: tabular-nums }
.timeline { display: flex } .timeline > svg { flex: none } .scroll { overflow-x: auto; flex: auto }
svg { display: block } svg text { fill: currentColor; font: 12px system-ui, sans-serif } svg .small { font-size: 10.5px }
svg .label { fill: #fff; font-size: 11px; pointer-events: none }
.grid { stroke: #8883; stroke-width: 1 } .degraded { fill: #d4a72c; fill-opacity: .13 }
.impossible { fill: #cf222e; fill-opacity: .13 }
.kill { fill: #cf222e } .power { fill: #82071e } .restart { fill: #57606a } .version { fill: #116329 }
.failpoint { fill: #bc4c00 } .pause { fill: #e16f24 } .partition { fill: #8250df } .network { fill: #bf3989 }
.disk { fill: #7d4e00 } .clock { fill: #0969da } .replace { fill: #1b7c83 } .machine { fill: #6e011a }
.container { fill: #d1242f } .leader { fill: #2da44e } .wanted { fill: #fff; stroke: #57606a;
stroke-width: 2 } .unwanted { fill: #cf222e; stroke: #fff; stroke-width: 2 }
.done { fill: #54aeff } .refused { fill: #d4a72c } .unknown { fill: #cf222e }
.p50 { fill: #0969da } .p99 { fill: #e16f24 } .p100 { fill: #cf222e; fill-opacity: .45 }
.key { display: flex; flex-wrap: wrap; gap: .2em 1.2em; margin: .6em 0; font-size: 13px }
.key svg, td svg { display: inline-block; width: 12px; height: 12px; margin-right: .4em; vertical-align: -1px }
";

/// Legend: classes of the style, and their names.
const KEY: [&[(&str, &str)]; 3] = [
    &[
        ("kill", "killed"),
        ("power", "power lost"),
        ("restart", "restarted"),
        ("version", "log of another version"),
        ("failpoint", "failpoint"),
        ("pause", "stopped"),
        ("partition", "partition"),
        ("network", "delay, loss"),
        ("disk", "slow, full or failing disk"),
        ("clock", "clock"),
        ("replace", "replaced"),
        ("machine", "machine lost with its containers"),
        ("container", "container killed"),
    ],
    &[
        ("leader", "leads"),
        ("wanted", "expected end"),
        ("unwanted", "unexpected end"),
        ("impossible", "no connected majority"),
        ("degraded", "a majority under bad conditions"),
    ],
    &[
        ("done", "done"),
        ("refused", "refused"),
        ("unknown", "outcome unknown"),
        ("p50", "p50"),
        ("p99", "p99"),
        ("p100", "slowest"),
    ],
];

/// Returns the whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let (class, verdict) = if report.is_violated() { ("violated", "VIOLATED") } else { ("passed", "no violation") };
    let mut page = String::new();
    let mut add = |text: std::fmt::Arguments| {
        // Writing to a string cannot fail.
        page.write_fmt(text).ok();
    };
    add(format_args!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>chaos, seed {seed}</title><style>{STYLE}</style>\
         <h1>Chaos, seed {seed}: <span class=\"{class}\">{verdict}</span></h1>\
         <p>Again: <code>{again}</code></p>",
        seed = report.seed,
        again = escape(&report.again()),
    ));
    for reason in report.left_out {
        add(format_args!("<p class=\"undecided\">Left out: {}</p>", escape(reason)));
    }
    if let Some(kept) = &report.kept {
        add(format_args!("<p class=\"{class}\">The history is in {}</p>", escape(kept)));
    }
    add(format_args!("<div class=\"tiles\">"));
    for (name, value) in tiles(report) {
        add(format_args!("<div class=\"tile\"><b>{}</b>{name}</div>", escape(&value)));
    }
    add(format_args!("</div><h2>Checks</h2><table>{}</table>", checks(report)));
    add(format_args!("<h2>Timeline</h2>{}", timeline(report)));
    for line in KEY {
        add(format_args!("<div class=\"key\">"));
        for (class, name) in line {
            add(format_args!("<span>{}{name}</span>", sample(class)));
        }
        add(format_args!("</div>"));
    }
    add(format_args!("<h2>Figures</h2><table>"));
    for (name, value) in report.figures().rows() {
        add(format_args!("<tr><td>{name}<td>{}", escape(&value)));
    }
    add(format_args!("</table><h2>Faults</h2><table><tr><th>kind<th>how often<th>seconds in all"));
    for (kind, count, seconds) in kinds(report) {
        let (sample, name) = (sample(timeline::class(kind)), kind.name());
        add(format_args!("<tr><td>{sample}{name}<td class=\"number\">{count}<td class=\"number\">{seconds:.1}"));
    }
    add(format_args!("</table><h2>Faults in order</h2><table><tr><th>from<th>for<th>what"));
    for injected in &report.account.injected {
        let (from, lasts) = (injected.from as f64 / 1e6, (injected.to - injected.from) as f64 / 1e6);
        let (sample, text) = (sample(timeline::class(injected.kind)), escape(&injected.text));
        add(format_args!("<tr><td class=\"number\">{from:.2} s<td class=\"number\">{lasts:.2} s<td>{sample}{text}"));
    }
    add(format_args!("</table></html>\n"));
    page
}

/// Square in the colour of a class.
fn sample(class: &str) -> String {
    format!("<svg viewBox=\"0 0 12 12\"><rect x=\"1\" y=\"1\" width=\"10\" height=\"10\" class=\"{class}\"/></svg>")
}

/// Tiles at the top of the page.
fn tiles(report: &Report) -> Vec<(&'static str, String)> {
    let passed = report.checks.iter().filter(|check| check.status == Status::Passed).count();
    let figures = report.figures();
    vec![
        ("checks passed", format!("{passed} of {}", report.checks.len())),
        ("of faults", format!("{:.1} min", report.end as f64 / 60e6)),
        ("faults", report.account.injected.len().to_string()),
        ("operations", figures.operations.to_string()),
        ("members", report.members.to_string()),
        ("workers", report.workers.to_string()),
        ("terms with a leader", figures.terms.to_string()),
    ]
}

/// Count and total seconds of each kind of fault.
fn kinds(report: &Report) -> Vec<(Kind, usize, f64)> {
    let mut kinds: BTreeMap<Kind, (usize, f64)> = BTreeMap::new();
    for injected in &report.account.injected {
        let (count, seconds) = kinds.entry(injected.kind).or_default();
        *count += 1;
        *seconds += (injected.to - injected.from) as f64 / 1e6;
    }
    kinds.into_iter().map(|(kind, (count, seconds))| (kind, count, seconds)).collect()
}

fn checks(report: &Report) -> String {
    let mut rows = String::new();
    for check in report.checks {
        let class = match check.status {
            Status::Passed => "passed",
            Status::Violated => "violated",
            Status::Undecided => "undecided",
        };
        let (sign, name, extent) = (sign(check.status), escape(&check.name), escape(&check.extent));
        // Writing to a string cannot fail.
        write!(rows, "<tr><td class=\"{class}\">{sign}<td>{name}<td class=\"quiet\">{extent}").ok();
        for violation in &check.violations {
            write!(rows, "<pre>{}</pre>", escape(violation)).ok();
        }
    }
    rows
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::summary;
    use super::*;
    use crate::checker::Check;
    use crate::fault::Kind;
    use crate::history::{Api, Operation, Outcome, Transaction};
    use crate::leader::Led;
    use crate::nemesis::{Account, AgentDeath, Change, Death, Injected, ServiceLevel};
    use crate::world::Effect;

    #[test]
    fn every_fault_appears_on_the_timeline() {
        use crate::world::{Action, Failpoint, Phase, Point, Quality};
        let failpoint = Failpoint { point: Point::LogSync, phase: Phase::Before, action: Action::Die };
        let effects = [
            (Kind::Kill, Effect::Down(vec![0, 1])),
            (Kind::LostDisks, Effect::Lost(vec![0])),
            (Kind::PowerLoss, Effect::PowerLost(vec![2])),
            (Kind::Restart, Effect::Ended(vec![1])),
            (Kind::LogVersion, Effect::OtherLog(0)),
            (Kind::Failpoint, Effect::Failpoint { member: 2, failpoint }),
            (Kind::Pause, Effect::Paused(vec![1])),
            (Kind::Partition, Effect::Cut(vec![(0, 1)])),
            (Kind::Network, Effect::Poor(Quality { delay_ms: 75, jitter_ms: 50, ..Quality::default() })),
            (Kind::SlowDisk, Effect::SlowDisk { member: 0, sync_delay_ms: 30, delay_ms: 4 }),
            (Kind::FullDisk, Effect::FullDisk(1)),
            (Kind::FailedSync, Effect::FailingSync(1)),
            (Kind::Clock, Effect::Clock { member: 0, offset_s: -3600 }),
            (Kind::Replace, Effect::Replaced(2)),
            (Kind::AgentKill, Effect::AgentsDown(vec![0, 1])),
            (Kind::AgentPause, Effect::AgentsPaused(vec![1])),
            (Kind::AgentRestart, Effect::AgentsEnded(vec![0])),
            (Kind::MachineLoss, Effect::MachineLost(1)),
            (Kind::WorkerPartition, Effect::CutOff { worker: 0, members: vec![0, 2] }),
            (Kind::ContainerKill, Effect::ContainerKilled { worker: 1, drawn: 5 }),
            (Kind::AgentClock, Effect::AgentClock { worker: 0, offset_s: 3600 }),
        ];
        assert!(Kind::ALL.iter().all(|kind| effects.iter().any(|(shown, _)| shown == kind)));
        let injected = effects.map(|(kind, effect)| {
            let text = effect.to_string();
            // All faults overlap, and none may hide another one.
            Injected { from: 100_000, to: 60_000_000, effect, text, kind }
        });
        let account = Account { injected: injected.to_vec(), ..Account::default() };
        let report = Report {
            seed: 7,
            members: 3,
            workers: 2,
            setting: Vec::new(),
            checks: &[],
            operations: &[],
            account: &account,
            leaders: &[],
            end: 61_000_000,
            left_out: &[],
            kept: None,
        };
        let (page, drawn) = (page(&report), timeline(&report));
        for Injected { text, kind, .. } in &injected {
            assert!(drawn.contains(&format!("<title>{} at 0.10 s", escape(text))), "{text} is not drawn");
            assert!(page.contains(&format!("{}<td", kind.name())), "{} is not counted", kind.name());
            assert!(STYLE.contains(&format!(".{} {{ fill", timeline::class(*kind))), "{text} has no colour");
        }
        assert!(KEY.iter().copied().flatten().all(|(class, _)| STYLE.contains(&format!(".{class} {{"))));
    }

    #[test]
    fn a_report_is_complete_and_self_contained() {
        let operation = |at: u64, outcome: Outcome| Operation {
            client: "c".to_owned(),
            api: Api::Etcd,
            object: "a".to_owned(),
            member: 0,
            called: at,
            returned: at + 2500,
            request: Transaction::put("a", "x"),
            outcome,
        };
        let operations = [
            operation(0, Outcome::Done { succeeded: true, observed: Vec::new(), revision: 2 }),
            operation(500_000, Outcome::Unknown { reason: "no answer".to_owned() }),
            operation(900_000, Outcome::Refused { reason: "no leader".to_owned() }),
        ];
        let effect = Effect::Down(vec![1]);
        let account = Account {
            injected: vec![Injected { from: 400_000, to: 800_000, text: effect.to_string(), effect, kind: Kind::Kill }],
            changes: vec![
                Change { at: 0, service: ServiceLevel::Required },
                Change { at: 400_000, service: ServiceLevel::Impossible },
            ],
            deaths: vec![Death {
                at: 600_000,
                member: 0,
                status: "exit code 1".to_owned(),
                is_wanted: false,
                said: "<tag>".to_owned(),
            }],
            agent_deaths: vec![AgentDeath {
                at: 700_000,
                worker: 1,
                status: "exit code 7".to_owned(),
                is_wanted: false,
                said: String::new(),
            }],
            late_ms: 3,
            ..Account::default()
        };
        let checks = [
            Check::of("registers are linearizable", "3 operations".to_owned(), Vec::new()),
            Check::of("members end only when they are killed", String::new(), vec!["m1 said <tag> & more".to_owned()]),
        ];
        let report = Report {
            seed: 7,
            members: 3,
            workers: 2,
            setting: vec![("members".to_owned(), "3".to_owned())],
            checks: &checks,
            operations: &operations,
            account: &account,
            leaders: &[Led { at: 0, member: 2, term: 4 }],
            end: 1_000_000,
            left_out: &["full disks: only root".to_owned()],
            kept: Some("/tmp/x".to_owned()),
        };
        let page = page(&report);
        for expected in [
            "VIOLATED",
            "kill -9 m2",
            "--seed 7 --members 3",
            "m3 leads in term 4",
            "m1 said &lt;tag&gt; &amp; more",
            "w2 ended at 0.70 s: exit code 7",
            "only root",
            "/tmp/x",
        ] {
            assert!(page.contains(expected), "the page does not contain {expected:?}");
        }
        assert!(!page.contains("src=") && !page.contains("href="), "the page needs external resources");
        let text = summary(&report);
        for expected in
            ["ok         registers are linearizable", "VIOLATED   members end", "seed 7", "unknown 1", "kill -9 m2"]
        {
            assert!(text.contains(expected), "the summary does not contain {expected:?}: {text}");
        }
    }
}
