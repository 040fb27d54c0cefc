//! `api-resources` and `api-versions`.

use crate::error::{CliError, Result};
use crate::output::TablePrinter;
use crate::session::Session;

/// List the kinds that the server has
#[derive(Debug, clap::Args)]
pub struct ApiResources {
    /// Only kinds of this group; the empty name is the core group
    #[arg(long)]
    api_group: Option<String>,
    /// Only kinds with (true) or without (false) namespaces
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only kinds with these verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only kinds of these categories
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// Output format: wide or name
    #[arg(short = 'o', long)]
    output: Option<String>,
    #[arg(long)]
    no_headers: bool,
}

impl ApiResources {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let (wide, names) = match self.output.as_deref() {
            None | Some("") => (false, false),
            Some("wide") => (true, false),
            Some("name") => (false, true),
            Some(other) => return Err(CliError::usage(format!("--output {other} is not available; use wide or name"))),
        };
        let discovery = session.refresh().await?;
        let mut rows = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for resource in &discovery.resources {
            let chosen = self.api_group.as_ref().is_none_or(|group| *group == resource.group)
                && self.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
                && self.verbs.iter().all(|verb| resource.has_verb(verb))
                && self.categories.iter().all(|category| resource.categories.contains(category));
            if !chosen || !seen.insert(resource.group_resource()) {
                continue;
            }
            let mut row = vec![
                resource.plural.clone(),
                resource.short_names.join(","),
                resource.api_version(),
                resource.namespaced.to_string(),
                resource.kind.clone(),
            ];
            if wide {
                row.push(resource.verbs.join(","));
                row.push(resource.categories.join(","));
            }
            rows.push((resource.group.clone(), resource.group_resource(), row));
        }
        rows.sort();
        if names {
            for (_, name, _) in rows {
                session.streams.line(name)?;
            }
            return Ok(());
        }
        let mut headers = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        if wide {
            headers.extend(["VERBS", "CATEGORIES"]);
        }
        let headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, _, row)| row).collect();
        session.streams.text(TablePrinter::default().rows(&headers, &rows, self.no_headers))
    }
}

/// List the API groups and versions that the server has
#[derive(Debug, clap::Args)]
pub struct ApiVersions {}

impl ApiVersions {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let discovery = session.refresh().await?;
        let mut versions: Vec<String> = discovery.resources.iter().map(|resource| resource.api_version()).collect();
        versions.sort();
        versions.dedup();
        for version in versions {
            session.streams.line(version)?;
        }
        Ok(())
    }
}
