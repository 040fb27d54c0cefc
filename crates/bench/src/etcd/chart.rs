//! The chart: two bars for each workload, of which the longer one fills the row. This module is pure.

use std::fmt::Write;

use super::stats::{Results, Side, Spread, Summary};
use super::table::value;

const WIDTH: f64 = 960.0;
const BARS_AT: f64 = 300.0;
const BARS_WIDTH: f64 = 420.0;
const RATIO_AT: f64 = WIDTH - 16.0;
const TOP: f64 = 76.0;
const ROW_HEIGHT: f64 = 40.0;
const BAR_HEIGHT: f64 = 13.0;
const ETCD_COLOUR: &str = "#8a94a6";
const QUORATE_COLOUR: &str = "#2563eb";
const WORSE_COLOUR: &str = "#b45309";

/// Returns an SVG with a row for each workload: medians as bars, minimum and maximum of the rounds as whiskers, and the
/// ratio.
pub fn svg(results: &Results, subtitle: &str) -> String {
    let summaries: Vec<_> = results.rows.iter().map(Summary::of).collect();
    let height = TOP + ROW_HEIGHT * summaries.len() as f64 + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, 16.0, 28.0, "start", "font-size=\"18\" font-weight=\"600\"", "Quorate and etcd, the same load");
    text(&mut svg, 16.0, 48.0, "start", "fill=\"#475569\"", subtitle);
    for (x, colour, name) in [(BARS_AT, ETCD_COLOUR, "etcd"), (BARS_AT + 70.0, QUORATE_COLOUR, "quorate")] {
        bar(&mut svg, x, TOP - 20.0, 12.0, colour);
        text(&mut svg, x + 17.0, TOP - 9.5, "start", "", name);
    }
    text(&mut svg, RATIO_AT, TOP - 9.5, "end", "fill=\"#475569\"", "quorate / etcd");
    for (i, summary) in summaries.iter().enumerate() {
        row(&mut svg, TOP + ROW_HEIGHT * i as f64, summary);
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, y: f64, summary: &Summary) {
    let Summary { name, unit, etcd, quorate, ratio } = summary;
    let direction = if unit.more_is_better() { "" } else { ", less is better" };
    text(svg, 16.0, y + 14.0, "start", "", name);
    text(svg, 16.0, y + 28.0, "start", "fill=\"#64748b\" font-size=\"10\"", &format!("{}{direction}", unit.name()));
    let longest = [etcd, quorate].into_iter().flatten().map(|side| side.value.max).fold(0.0, f64::max);
    for (side, colour, offset) in [(etcd, ETCD_COLOUR, 3.0), (quorate, QUORATE_COLOUR, 18.0)] {
        let Some(Side { value: spread, errors, .. }) = side else { continue };
        let scale = if longest > 0.0 { BARS_WIDTH / longest } else { 0.0 };
        let end = BARS_AT + spread.max * scale;
        bar(svg, BARS_AT, y + offset, spread.median * scale, colour);
        whiskers(svg, y + offset + BAR_HEIGHT / 2.0, *spread, scale);
        let failed = if *errors > 0 { format!(" ({errors} errors)") } else { String::new() };
        text(svg, end + 6.0, y + offset + 10.5, "start", "", &format!("{}{failed}", value(spread.median, *unit)));
    }
    if let Some(ratio) = ratio {
        let is_better = (ratio.value.median > 1.0) == unit.more_is_better();
        let style = format!("font-weight=\"600\" fill=\"{}\"", if is_better { QUORATE_COLOUR } else { WORSE_COLOUR });
        text(svg, RATIO_AT, y + 22.0, "end", &style, &format!("{:.2}", ratio.value.median));
    }
}

fn bar(svg: &mut String, x: f64, y: f64, width: f64, colour: &str) {
    append(
        svg,
        format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>"
        ),
    );
}

fn whiskers(svg: &mut String, y: f64, spread: Spread, scale: f64) {
    let (from, to) = (BARS_AT + spread.min * scale, BARS_AT + spread.max * scale);
    append(svg, format_args!("<path d=\"M{from:.1} {y:.1}H{to:.1}\" stroke=\"#0f172a\"/>"));
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    append(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{text}</text>"));
}

fn append(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::super::stats::{Finding, Sample, System, Unit};
    use super::*;

    fn results(etcd: f64, quorate: f64) -> Results {
        let mut results = Results::default();
        for (system, value) in [(System::Etcd, etcd), (System::Quorate, quorate)] {
            let sample = Sample { values: vec![value], ..Sample::default() };
            results.add(system, 0, Finding { row: "put <&>".to_owned(), unit: Unit::Milliseconds, sample });
        }
        results
    }

    #[test]
    fn the_length_of_a_bar_follows_its_value() {
        let svg = svg(&results(200.0, 50.0), "");
        assert!(svg.contains(&format!("width=\"420.0\" height=\"{BAR_HEIGHT}\" fill=\"{ETCD_COLOUR}\"")));
        assert!(svg.contains(&format!("width=\"105.0\" height=\"{BAR_HEIGHT}\" fill=\"{QUORATE_COLOUR}\"")));
        assert!(svg.contains(&format!("fill=\"{QUORATE_COLOUR}\">0.25</text>")), "less is better for this row");
    }

    #[test]
    fn names_are_escaped_and_no_value_is_nan() {
        let svg = svg(&results(0.0, 0.0), "a < b");
        assert!(svg.contains("put &lt;&amp;>") && svg.contains("a &lt; b"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
