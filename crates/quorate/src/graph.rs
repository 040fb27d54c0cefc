//! `quorate graph`: what the parts of a leader read and write.

use std::io::Write;

use anyhow::Context;
use quorate_controllers::{Controller, Writes, controllers};

#[derive(clap::Subcommand, Clone, Copy, Debug)]
pub enum GraphCommand {
    /// List the controllers with the kinds that they read and the resources that they write, besides Events.
    Controllers {
        #[arg(short = 'o', long, value_enum, default_value = "table")]
        output: Output,
    },
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Table,
    /// The graph in Graphviz' language.
    Dot,
}

pub fn main(command: GraphCommand) -> anyhow::Result<()> {
    let GraphCommand::Controllers { output } = command;
    let text = match output {
        Output::Table => table(),
        Output::Dot => dot(),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn reads(controller: &Controller) -> Vec<String> {
    controller.reads.iter().map(|kind| format!("{kind:?}")).collect()
}

fn writes(controller: &Controller) -> Vec<String> {
    match controller.writes {
        Writes::Only(resources) => resources.iter().map(|resource| resource.resource.to_string()).collect(),
        Writes::Anything => vec!["(every resource)".to_owned()],
    }
}

fn table() -> String {
    let rows = controllers().iter().map(|controller| {
        let reads = reads(controller).join(", ");
        let reads = if reads.is_empty() { "(metadata)".to_owned() } else { reads };
        [controller.name.to_owned(), reads, writes(controller).join(", ")]
    });
    let rows: Vec<_> = [["CONTROLLER", "READS", "WRITES"].map(str::to_owned)].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    rows.iter().map(|[name, reads, writes]| format!("{name:first$}   {reads:second$}   {writes}\n")).collect()
}

fn dot() -> String {
    let edges = controllers().iter().flat_map(|controller| {
        let name = controller.name;
        let read = reads(controller).into_iter().map(move |kind| format!("    \"{kind}\" -> \"{name}\";\n"));
        let written = writes(controller).into_iter().map(move |to| format!("    \"{name}\" -> \"{to}\";\n"));
        read.chain(written)
    });
    format!("digraph controllers {{\n    rankdir = LR;\n{}}}\n", edges.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_is_listed_with_what_it_reads_and_writes() {
        let table = table();
        assert_eq!(table.lines().count(), controllers().len() + 1);
        let line = table.lines().find(|line| line.starts_with("replicaset ")).expect("a line");
        assert!(line.contains("ReplicaSet, Pod, Namespace") && line.ends_with("replicasets, pods"), "{line}");
        assert!(dot().contains("\"Pod\" -> \"replicaset\";") && dot().contains("\"replicaset\" -> \"pods\";"));
    }
}
