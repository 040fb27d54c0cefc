//! `token`: creates, lists and revokes the tokens with which machines join.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::output::{self, Format, TablePrinter};
use crate::path::RequestPath;
use crate::session::Session;
use crate::transport::Call;

const PATH: &str = "/quorum/tokens";

/// Create, list and revoke the tokens with which machines join the cluster
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a token; prints the command to run on the new machine
    Create(Create),
    /// List the tokens, without their secrets
    List(List),
    /// Revoke tokens; machines that have joined with them stay
    Revoke {
        /// Ids of tokens, as `qctl token list` shows them
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    Master,
    Worker,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The role of the machines that join with the token
    #[arg(long, value_enum)]
    role: Role,
    /// Number of machines that may join with the token; always one for a master
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// Lifetime of the token, such as 30m or 24h; 0 means for ever
    #[arg(long, default_value = "24h", value_parser = crate::duration::parse)]
    ttl: Duration,
    /// Description of the token, which `list` shows
    #[arg(long, default_value = "")]
    description: String,
    /// The master that the new one replaces
    #[arg(long, value_name = "MASTER")]
    replaces: Option<String>,
    /// Print only the token
    #[arg(long)]
    token_only: bool,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Output format: yaml, json, name or jsonpath=…
    #[arg(short = 'o', long)]
    output: Option<String>,
    #[arg(long)]
    no_headers: bool,
}

/// Responses of the server.
#[derive(Debug, Deserialize)]
struct Created {
    token: String,
    command: String,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    tokens: Vec<TokenSummary>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenSummary {
    id: String,
    role: String,
    uses: u32,
    used_by: Vec<String>,
    expires: Option<String>,
    description: String,
}

impl Token {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        match self.action {
            Action::Create(create) => create.run(session).await,
            Action::List(list) => list.run(session).await,
            Action::Revoke { ids } => {
                for id in ids {
                    let id: String =
                        percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC).collect();
                    let call = Call::new(Method::DELETE, RequestPath::raw(&format!("{PATH}/{id}")));
                    let revoked: TokenSummary = read(session.transport.json(&call).await?)?;
                    session.streams.line(format!("token {} revoked", revoked.id))?;
                }
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, session: &mut Session) -> Result<()> {
        let role = match self.role {
            Role::Master => "master",
            Role::Worker => "worker",
        };
        let body = json!({
            "role": role,
            "uses": self.uses,
            "ttlSeconds": self.ttl.as_secs(),
            "description": self.description,
            "replaces": self.replaces,
        });
        let call = Call::new(Method::POST, RequestPath::raw(PATH)).body(&body);
        let created: Created = read(session.transport.json(&call).await?)?;
        session.streams.line(if self.token_only { created.token } else { created.command })
    }
}

impl List {
    async fn run(self, session: &mut Session) -> Result<()> {
        let format = Format::parse(self.output.as_deref())?;
        let document = session.transport.json(&Call::get(RequestPath::raw(PATH))).await?;
        match format {
            Format::Columns(_) => Err(CliError::usage("token list has no custom columns")),
            Format::Name => {
                for token in read::<Tokens>(document)?.tokens {
                    session.streams.line(token.id)?;
                }
                Ok(())
            }
            Format::Table { .. } => {
                let tokens = read::<Tokens>(document)?.tokens;
                if tokens.is_empty() {
                    return session.streams.note("There are no tokens; `qctl token create` creates one.");
                }
                session.streams.text(table(&tokens, self.no_headers))
            }
            format => session.streams.text(output::document(&format, &document)?),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(document: Value) -> Result<T> {
    serde_json::from_value(document).map_err(|error| CliError::Answer(format!("{PATH}: {error}")))
}

fn table(tokens: &[TokenSummary], no_headers: bool) -> String {
    let headers = ["ID", "ROLE", "USED", "EXPIRES", "USED-BY", "DESCRIPTION"].map(str::to_owned);
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let row = |token: &TokenSummary| {
        vec![
            token.id.clone(),
            token.role.clone(),
            format!("{}/{}", token.used_by.len(), token.uses),
            token.expires.clone().unwrap_or_else(|| "never".to_owned()),
            or_none(token.used_by.join(",")),
            or_none(token.description.clone()),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    TablePrinter::default().rows(&headers, &rows, no_headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_how_often_a_token_was_used() {
        let document = json!({"tokens": [
            {"id": "0a0b0c0d", "role": "worker", "uses": 10, "usedBy": ["w1", "w2"], "description": "rack 7",
             "expires": "2026-12-01T10:00:00Z"},
            {"id": "1a1b1c1d", "role": "worker", "uses": 1, "usedBy": [], "description": "", "expires": null},
        ]});
        let tokens: Tokens = read(document).expect("tokens");
        assert_eq!(
            table(&tokens.tokens, false),
            "ID         ROLE     USED   EXPIRES                USED-BY   DESCRIPTION\n\
             0a0b0c0d   worker   2/10   2026-12-01T10:00:00Z   w1,w2     rack 7\n\
             1a1b1c1d   worker   0/1    never                  <none>    <none>\n"
        );
    }
}
