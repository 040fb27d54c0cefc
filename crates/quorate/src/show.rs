//! `quorate pki show`: the certificates of this machine.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_pki::{Details, details, read};
use serde_json::json;
use time::OffsetDateTime;

use crate::config::PKI_DIRECTORY;
use crate::config::{agent, server};

#[derive(clap::Subcommand, Clone, Debug)]
pub enum PkiCommand {
    /// List the certificates in the data directories of this machine, with their names and expiry.
    Show(ShowArgs),
}

#[derive(clap::Args, Clone, Debug)]
pub struct ShowArgs {
    /// Data directory, or directory of certificates. [default: those of `quorate server` and `quorate agent`]
    #[arg(long, env = "QUORATE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Table,
    Json,
}

struct Certificate {
    path: PathBuf,
    details: Details,
}

pub fn main(command: PkiCommand) -> anyhow::Result<()> {
    let PkiCommand::Show(args) = command;
    let certificates = find(args.data_dir.as_deref())?;
    let text = match args.output {
        Output::Table => table(&certificates, OffsetDateTime::now_utc()),
        Output::Json => format!("{:#}\n", json(&certificates)?),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn find(data_dir: Option<&Path>) -> anyhow::Result<Vec<Certificate>> {
    let directories = match data_dir {
        Some(dir) if dir.join(PKI_DIRECTORY).is_dir() => vec![dir.join(PKI_DIRECTORY)],
        Some(dir) => vec![dir.to_owned()],
        None => [server::DEFAULT_DATA_DIR, agent::DEFAULT_DATA_DIR]
            .iter()
            .map(|dir| Path::new(dir).join(PKI_DIRECTORY))
            .filter(|dir| dir.is_dir())
            .collect(),
    };
    let mut found = Vec::new();
    for directory in &directories {
        let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "crt" || ending == "pem"));
        paths.sort();
        for path in paths {
            let details = details(read(&path)?.as_bytes()).with_context(|| format!("{}", path.display()))?;
            found.push(Certificate { path, details });
        }
    }
    let places = directories.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
    ensure!(
        !found.is_empty(),
        "no certificates{}; `quorate server` and `quorate agent` create them at their first start, and --data-dir \
         names another directory",
        if places.is_empty() { String::new() } else { format!(" in {places}") }
    );
    Ok(found)
}

fn day(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

fn left(remaining: Option<Duration>) -> String {
    match remaining.map(|remaining| remaining.as_secs()) {
        None => "expired".to_owned(),
        Some(seconds) if seconds >= 2 * 86_400 => format!("in {} days", seconds / 86_400),
        Some(seconds) if seconds >= 2 * 3600 => format!("in {} hours", seconds / 3600),
        Some(seconds) => format!("in {seconds} s"),
    }
}

fn names(details: &Details) -> Vec<String> {
    let user = [details.user.clone()];
    user.into_iter().chain(details.hosts.iter().filter(|host| **host != details.user).cloned()).collect()
}

fn table(certificates: &[Certificate], now: OffsetDateTime) -> String {
    let headers = ["FILE", "EXPIRES", "ISSUER", "FINGERPRINT", "GROUPS", "NAMES"].map(str::to_owned);
    let mut rows = vec![headers];
    for Certificate { path, details } in certificates {
        let groups = if details.is_authority { "(authority)".to_owned() } else { details.groups.join(",") };
        rows.push([
            path.display().to_string(),
            format!("{} ({})", day(details.not_after), left(details.remaining(now))),
            details.issuer.clone(),
            details.fingerprint.chars().take(16).collect(),
            groups,
            names(details).join(", "),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn json(certificates: &[Certificate]) -> anyhow::Result<serde_json::Value> {
    let one = |Certificate { path, details }: &Certificate| {
        json!({
            "file": path.file_name().map(|name| name.to_string_lossy()),
            "path": path,
            "user": details.user,
            "groups": details.groups,
            "hosts": details.hosts,
            "isAuthority": details.is_authority,
            "begins": day(details.not_before),
            "expires": day(details.not_after),
            "issuer": details.issuer,
            "fingerprint": details.fingerprint,
            "publicKeyHash": details.key_pin.as_str(),
        })
    };
    Ok(certificates.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use quorate_pki::{Authorities, Lifetimes, Pair, Subject, Usage};

    use super::*;

    #[test]
    fn certificates_are_listed_with_their_expiry() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let refused = find(Some(dir.path())).err().expect("there is nothing").to_string();
        assert!(refused.contains("no certificates in"), "{refused}");
        let pki = dir.path().join(PKI_DIRECTORY);
        let authorities = Authorities::open(&pki, Lifetimes::default()).expect("authorities");
        let hosts = vec!["m1".to_owned(), "10.0.0.1".to_owned()];
        let subject = Subject { user: "m1".to_owned(), group: None, hosts, usage: Usage::Server };
        let issued = authorities.cluster.issue(&Pair::new(&pki, "server"), &subject, Duration::from_secs(100 * 86_400));
        issued.expect("a certificate");
        let found = find(Some(dir.path())).expect("certificates");
        let shown = table(&found, OffsetDateTime::now_utc());
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        assert!(lines[1].contains("/ca.crt") && lines[1].contains("(authority)"), "{shown}");
        let server = lines[3];
        assert!(server.contains("m1, 10.0.0.1") && server.contains("(in 99 days)"), "{shown}");
        assert!(server.contains("quorate-ca"), "{shown}");
        let later = table(&found, OffsetDateTime::now_utc() + Duration::from_secs(101 * 86_400));
        assert!(later.contains("(expired)"), "{later}");
    }
}
