//! `quorum`: shows the masters, their leader and the progress of each, and changes the membership.

mod change;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::output::{self, Format, TablePrinter};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::Call;

/// Show or change the masters of the quorum, with their leader and the state of each
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Quorum {
    #[command(subcommand)]
    change: Option<change::Change>,
    /// Output format: wide, yaml, json, name or jsonpath=…, where `leader` is the name of a member
    #[arg(short = 'o', long)]
    output: Option<String>,
    #[arg(long)]
    no_headers: bool,
}

/// The response of the server.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuorumStatus {
    leader: Option<String>,
    #[serde(default)]
    term: u64,
    /// The command version that the quorum has agreed on.
    #[serde(default)]
    command_version: u32,
    members: Vec<MemberStatus>,
    #[serde(default)]
    invited: Vec<Invited>,
}

/// A member that was invited and has not joined yet.
#[derive(Debug, Deserialize)]
struct Invited {
    name: String,
    peer: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberStatus {
    name: String,
    #[serde(default)]
    peer: String,
    #[serde(default)]
    api: String,
    role: String,
    #[serde(default = "default_true")]
    voter: bool,
    #[serde(default)]
    intent: String,
    #[serde(default)]
    term: u64,
    #[serde(default)]
    applied_index: u64,
    #[serde(default)]
    lag: u64,
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    database_size_bytes: u64,
    /// The newest command version that it decodes.
    #[serde(default)]
    command_version: Option<u32>,
}

fn default_true() -> bool {
    true
}

impl MemberStatus {
    /// Returns the role, with the member's pending change.
    fn role_text(&self) -> String {
        match self.intent.as_str() {
            "leaving" => format!("{} (leaving)", self.role),
            _ if self.role == "unreachable" && !self.voter => "unreachable (learner)".to_owned(),
            _ => self.role.clone(),
        }
    }
}

impl Quorum {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if let Some(change) = self.change {
            return change.run(session).await;
        }
        let format = Format::parse(self.output.as_deref())?;
        let mut document = session.transport.json(&Call::get(RequestPath::raw("/quorum"))).await?;
        sort_members(&mut document);
        match format {
            Format::Columns(_) => Err(CliError::usage("quorum has no custom columns")),
            Format::Name => {
                for member in status(document)?.members {
                    session.streams.line(member.name)?;
                }
                Ok(())
            }
            Format::Table { wide } => {
                let text = table(&status(document)?, wide, self.no_headers);
                session.streams.text(text)
            }
            format => session.streams.text(output::document(&format, &document)?),
        }
    }
}

fn status(document: Value) -> Result<QuorumStatus> {
    serde_json::from_value(document).map_err(|error| CliError::Answer(format!("/quorum: {error}")))
}

fn sort_members(document: &mut Value) {
    if let Some(members) = document["members"].as_array_mut() {
        members.sort_by(|left, right| {
            output::natural_order(left["name"].as_str().unwrap_or_default(), right["name"].as_str().unwrap_or_default())
        });
    }
}

fn table(status: &QuorumStatus, wide: bool, no_headers: bool) -> String {
    let mut headers: Vec<String> =
        ["NAME", "ROLE", "TERM", "APPLIED", "LAG", "REVISION", "DB-SIZE", "API"].map(str::to_owned).to_vec();
    if wide {
        headers.extend(["PEER", "COMMANDS"].map(str::to_owned));
    }
    let rows: Vec<Vec<String>> = status
        .members
        .iter()
        .map(|member| {
            let known = |text: String| if member.role == "unreachable" { "-".to_owned() } else { text };
            let mut row = vec![
                member.name.clone(),
                member.role_text(),
                known(member.term.to_string()),
                known(member.applied_index.to_string()),
                known(member.lag.to_string()),
                known(member.revision.to_string()),
                known(human_size(member.database_size_bytes)),
                member.api.clone(),
            ];
            if wide {
                row.push(member.peer.clone());
                row.push(member.command_version.map_or("-".to_owned(), |version| version.to_string()));
            }
            row
        })
        .collect();
    let mut text = TablePrinter::default().rows(&headers, &rows, no_headers);
    if !no_headers {
        let voters = || status.members.iter().filter(|member| member.voter);
        let reachable = voters().filter(|member| member.role != "unreachable").count();
        let (voters, learners) = (voters().count(), status.members.len() - voters().count());
        let needed = voters / 2 + 1;
        let leader = status.leader.as_deref().map_or("no leader".to_owned(), |leader| format!("leader {leader}"));
        text.push_str(&format!(
            "\n{leader}, term {}, {reachable} of {voters} members answer, {needed} needed\n",
            status.term,
        ));
        if learners > 0 {
            text.push_str(&format!(
                "{learners} without a vote: the number of voters stays odd, so learners get votes in pairs or when voters leave\n"
            ));
        }
        for note in holdouts(status) {
            text.push_str(&note);
        }
        for Invited { name, peer } in &status.invited {
            let name = if name.is_empty() { "a member" } else { name };
            text.push_str(&format!("{name} at {peer} was invited and has not joined yet\n"));
        }
    }
    text
}

/// Describes the members that keep the quorum at an older command version than the other members know.
fn holdouts(status: &QuorumStatus) -> Vec<String> {
    let newest = status.members.iter().filter_map(|member| member.command_version).max().unwrap_or_default();
    let agreed = status.command_version;
    let holdout = |member: &MemberStatus| {
        let name = &member.name;
        let why = match member.command_version {
            Some(version) if version < newest => format!("knows only commands up to version {version}; upgrade it"),
            None if agreed < newest => "has not reported which commands it knows".to_owned(),
            _ => return None,
        };
        Some(format!("the command version stays {agreed} instead of {newest}: {name} {why}\n"))
    };
    status.members.iter().filter_map(holdout).collect()
}

fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut whole, mut unit) = (bytes, 0);
    // Integer division keeps one exact decimal without floating-point arithmetic.
    while whole >= 1024 * 1024 && unit + 1 < UNITS.len() {
        whole /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", whole / 1024, whole % 1024 * 10 / 1024, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_each_member_and_the_leader() {
        let mut document = serde_json::json!({"leader": "m2", "term": 7, "members": [
            {"id": 2, "name": "m10", "peer": "h:10", "api": "https://h:1", "role": "unreachable", "term": 0,
             "lastLogIndex": 0, "appliedIndex": 0, "lag": 0, "revision": 0, "databaseSizeBytes": 0},
            {"id": 1, "name": "m2", "peer": "h:2", "api": "https://h:2", "role": "leader", "term": 7,
             "lastLogIndex": 90, "appliedIndex": 90, "lag": 0, "revision": 41, "databaseSizeBytes": 2_621_440},
        ]});
        sort_members(&mut document);
        let text = table(&status(document).expect("a status"), false, false);
        assert_eq!(
            text,
            "NAME   ROLE          TERM   APPLIED   LAG   REVISION   DB-SIZE   API\n\
             m2     leader        7      90        0     41         2.5 MiB   https://h:2\n\
             m10    unreachable   -      -         -     -          -         https://h:1\n\
             \nleader m2, term 7, 1 of 2 members answer, 2 needed\n"
        );
    }

    #[test]
    fn a_member_that_holds_back_the_command_version_is_named() {
        let member = |name: &str, commands: Option<u32>| {
            let mut member =
                serde_json::json!({ "name": name, "peer": "h:1", "api": "https://h:1", "role": "follower" });
            if let Some(commands) = commands {
                member["commandVersion"] = commands.into();
            }
            member
        };
        let shown = |agreed: u32, members: &[serde_json::Value]| {
            let document = serde_json::json!({ "leader": "m1", "commandVersion": agreed, "members": members });
            table(&status(document).expect("a status"), true, false)
        };
        let text = shown(1, &[member("m1", Some(2)), member("m2", Some(1)), member("m3", None)]);
        assert!(text.contains("PEER   COMMANDS\n") && text.contains("h:1    2\n"), "{text}");
        assert!(text.contains("stays 1 instead of 2: m2 knows only commands up to version 1; upgrade it\n"), "{text}");
        assert!(text.contains("m3 has not reported which commands it knows\n"), "{text}");
        // A quorum that has agreed, a member that is away then, and masters from before the command versions.
        for members in [[member("m1", Some(2)), member("m2", None)], [member("m1", None), member("m2", None)]] {
            let text = shown(2, &members);
            assert!(!text.contains("the command version"), "{text}");
        }
    }

    #[test]
    fn sizes_are_rounded_to_one_decimal() {
        for (bytes, text) in [(0, "0 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
