//! `config`: shows and changes kubeconfig files.

use kube::config::Kubeconfig;
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::kubeconfig::{self, Environment, Overrides};
use crate::output::{Format, TablePrinter, json, yaml};
use crate::streams::Streams;

/// Show and change kubeconfig files
#[derive(Debug, clap::Args)]
pub struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Show the merged kubeconfig
    View {
        /// Show certificates and secrets too
        #[arg(long)]
        raw: bool,
        /// Show only the entries that the current context uses
        #[arg(long)]
        minify: bool,
        /// Output format: yaml, json or jsonpath=…
        #[arg(short = 'o', long)]
        output: Option<String>,
    },
    /// List the contexts
    GetContexts {
        name: Option<String>,
        /// Output format: `name` prints only names
        #[arg(short = 'o', long)]
        output: Option<String>,
        #[arg(long)]
        no_headers: bool,
    },
    /// Set the current context
    #[command(alias = "use")]
    UseContext { name: String },
    /// Print the current context
    CurrentContext,
}

impl Config {
    pub fn run(&self, streams: &mut Streams, overrides: &Overrides, environment: &Environment) -> Result<()> {
        let merged = kubeconfig::load(overrides, environment)?;
        match &self.command {
            ConfigCommand::View { raw, minify, output } => {
                let merged = if *minify { minified(merged, overrides)? } else { merged };
                let document = kubeconfig::view(&merged, *raw)?;
                match Format::parse(output.as_deref())? {
                    Format::Json => streams.text(json(&document)?),
                    Format::JsonPath(path) => streams.text(path.render(&document)),
                    _ => streams.text(yaml(&document)),
                }
            }
            ConfigCommand::GetContexts { name, output, no_headers } => {
                contexts(streams, &merged, name.as_deref(), output.as_deref() == Some("name"), *no_headers)
            }
            ConfigCommand::UseContext { name } => {
                kubeconfig::use_context(&kubeconfig::files(overrides, environment), &merged, name)?;
                streams.line(format!("Switched to context \"{name}\"."))
            }
            ConfigCommand::CurrentContext => match merged.current_context.filter(|name| !name.is_empty()) {
                Some(name) => streams.line(name),
                None => Err(CliError::usage("current-context is not set")),
            },
        }
    }
}

/// Reduces a kubeconfig to the current context with its cluster and its user.
fn minified(mut config: Kubeconfig, overrides: &Overrides) -> Result<Kubeconfig> {
    let name = overrides.context.clone().or(config.current_context.clone()).unwrap_or_default();
    config.contexts.retain(|context| context.name == name);
    let Some(context) = config.contexts.first().and_then(|context| context.context.clone()) else {
        return Err(CliError::usage(format!("context \"{name}\" does not exist")));
    };
    config.clusters.retain(|cluster| cluster.name == context.cluster);
    config.auth_infos.retain(|user| Some(&user.name) == context.user.as_ref());
    config.current_context = Some(name);
    Ok(config)
}

fn contexts(
    streams: &mut Streams,
    config: &Kubeconfig,
    only: Option<&str>,
    names: bool,
    no_headers: bool,
) -> Result<()> {
    let mut rows = Vec::new();
    for named in config.contexts.iter().filter(|named| only.is_none_or(|only| only == named.name)) {
        if names {
            streams.line(&named.name)?;
            continue;
        }
        let current = if config.current_context.as_ref() == Some(&named.name) { "*" } else { "" };
        let context = serde_json::to_value(&named.context).unwrap_or(Value::Null);
        let text = |field: &str| context[field].as_str().unwrap_or_default().to_owned();
        rows.push(vec![current.to_owned(), named.name.clone(), text("cluster"), text("user"), text("namespace")]);
    }
    if let Some(only) = only
        && !config.contexts.iter().any(|named| named.name == only)
    {
        return Err(CliError::usage(format!("context {only} not found")));
    }
    if names {
        return Ok(());
    }
    let headers = ["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned);
    streams.text(TablePrinter::default().rows(&headers, &rows, no_headers))
}
