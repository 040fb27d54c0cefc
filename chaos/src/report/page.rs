//! The page: everything in one file, without anything from elsewhere.

use std::fmt::Write;

use super::timeline::timeline;
use super::{Report, sign};
use crate::checker::Status;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --ok: #1a7f37; --bad: #cf222e; --maybe: #9a6700 }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid var(--line); padding: .3em .6em;
text-align: left; vertical-align: top } pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px }
.passed { color: var(--ok) } .violated { color: var(--bad); font-weight: bold } .undecided { color: var(--maybe) }
svg { width: 100%; height: auto } svg text { fill: currentColor; font: 12px system-ui } svg .small { font-size: 10px }
.grid { stroke: #8883; stroke-width: 1 } .degraded { fill: #d4a72c22 } .impossible { fill: #cf222e22 }
.kill { fill: #cf222e } .pause { fill: #e16f24 } .partition { fill: #8250df } .network { fill: #bf3989 }
.disk { fill: #7d4e00 } .clock { fill: #0969da } .leader { fill: #2da44e } .wanted { fill: #888 }
.unwanted { fill: #cf222e; stroke: #000 } .done { fill: #54aeff } .refused { fill: #d4a72c } .unknown { fill: #cf222e }
.p50 { fill: #0969da } .p99 { fill: #e16f24 } .p100 { fill: #cf222e88 }
.key span { display: inline-block; width: 1em; height: 1em; margin: 0 .3em 0 1em; vertical-align: -2px }
";

/// What the colours mean: of a class, and its name.
const KEY: [(&str, &str); 13] = [
    ("#cf222e", "killed"),
    ("#e16f24", "stopped; p99"),
    ("#8250df", "partition"),
    ("#bf3989", "delay, loss"),
    ("#7d4e00", "disk"),
    ("#0969da", "clock; p50"),
    ("#2da44e", "leads"),
    ("#54aeff", "done"),
    ("#d4a72c", "refused"),
    ("#cf222e", "unknown; slowest"),
    ("#cf222e22", "no connected majority"),
    ("#d4a72c22", "bad conditions"),
    ("#888", "ended as it must"),
];

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let verdict = if report.is_violated() { ("violated", "VIOLATED") } else { ("passed", "no violation") };
    let setting: Vec<String> = report.setting.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut page = String::new();
    let mut add = |text: std::fmt::Arguments| {
        // Writing to a string does not fail.
        page.write_fmt(text).ok();
    };
    add(format_args!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>chaos, seed {}</title><style>{STYLE}</style>\
         <h1>Chaos, seed {}: <span class=\"{}\">{}</span></h1><p>{}</p>",
        report.seed,
        report.seed,
        verdict.0,
        verdict.1,
        escape(&setting.join(", "))
    ));
    for reason in report.left_out {
        add(format_args!("<p class=\"undecided\">Left out: {}</p>", escape(reason)));
    }
    if let Some(kept) = &report.kept {
        add(format_args!("<p class=\"violated\">The history is in {}</p>", escape(kept)));
    }
    add(format_args!("<h2>Timeline</h2>{}<p class=\"key\">", timeline(report)));
    for (colour, name) in KEY {
        add(format_args!("<span style=\"background:{colour}\"></span>{name}"));
    }
    add(format_args!("</p><h2>Checks</h2><table>{}</table>", checks(report)));
    add(format_args!("<h2>Figures</h2><table>"));
    for (name, value) in report.figures().rows() {
        add(format_args!("<tr><td>{name}<td>{}", escape(&value)));
    }
    add(format_args!("</table><h2>Faults</h2><table><tr><th>from<th>for<th>what"));
    for injected in &report.account.injected {
        let (from, lasts) = (injected.from as f64 / 1e6, (injected.to - injected.from) as f64 / 1e6);
        add(format_args!("<tr><td>{from:.2} s<td>{lasts:.2} s<td>{}", escape(&injected.text)));
    }
    add(format_args!("</table></html>\n"));
    page
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
        // Writing to a string does not fail.
        write!(rows, "<tr><td class=\"{class}\">{sign}<td>{name}<td>{extent}").ok();
        for violation in &check.violations {
            write!(rows, "<pre>{}</pre>", escape(violation)).ok();
        }
    }
    rows
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::summary;
    use super::*;
    use crate::checker::Check;
    use crate::history::{Api, Operation, Outcome, Transaction};
    use crate::leader::Led;
    use crate::nemesis::{Account, Change, Death, Injected, ServiceLevel};
    use crate::schedule::Kind;
    use crate::world::Effect;

    #[test]
    fn a_report_tells_everything_and_stands_alone() {
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
            late_ms: 3,
        };
        let checks = [
            Check::of("registers are linearizable", "3 operations".to_owned(), Vec::new()),
            Check::of("members end only when they are killed", String::new(), vec!["m1 said <tag> & more".to_owned()]),
        ];
        let report = Report {
            seed: 7,
            members: 3,
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
        for told in
            ["VIOLATED", "kill -9 m2", "m3 leads in term 4", "m1 said &lt;tag&gt; &amp; more", "only root", "/tmp/x"]
        {
            assert!(page.contains(told), "the page does not tell {told:?}");
        }
        assert!(!page.contains("src=") && !page.contains("href="), "the page needs something else");
        let text = summary(&report);
        for told in
            ["ok         registers are linearizable", "VIOLATED   members end", "seed 7", "unknown 1", "kill -9 m2"]
        {
            assert!(text.contains(told), "the summary does not tell {told:?}: {text}");
        }
    }
}
