//! Commands of the workspace, run as `cargo run -p xtask -- COMMAND`.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes `crates/schema/data` from Kubernetes' OpenAPI documents, its protobuf definitions and the facts of its Go types.
    Schema {
        /// The directory that holds `openapi-v3` and `proto`.
        #[arg(long)]
        from: PathBuf,
    },
    /// Writes `crates/xtask/facts` from Kubernetes' Go sources: what neither OpenAPI nor protobuf tells about a field.
    Facts {
        /// The directory that holds the repositories `api`, `apimachinery`, `apiextensions-apiserver` and `kube-aggregator`.
        #[arg(long)]
        from: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Schema { from } => {
            let data = xtask::generate::generate(&from)?;
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/data");
            xtask::write(&target, &data)
        }
        Command::Facts { from } => {
            let facts = xtask::facts::extract(&from)?;
            xtask::write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("facts"), &facts)
        }
    }
}
