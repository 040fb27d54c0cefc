//! `cluster.json`: the members of the cluster, their processes and their addresses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::{MemberSpec, Runtime};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ClusterFile {
    /// Name that marks the cluster's containers on a shared engine.
    pub name: String,
    pub runtime: Runtime,
    pub members: Vec<ClusterMember>,
    /// Founding members of the quorum. The current members are known only to the quorum.
    pub founders: Vec<MemberSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Worker,
}

/// A member process. The addresses are URLs, and only those of the member's role are set.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ClusterMember {
    pub name: String,
    pub role: Role,
    /// Process id; 0 before the first start.
    pub pid: i32,
    pub log: PathBuf,
    pub data: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Token with which a master that is not a founder has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
}

impl ClusterMember {
    /// Returns the path of the member's configuration file. It also distinguishes the member's process from an
    /// unrelated one with the same pid.
    pub fn config(&self) -> PathBuf {
        self.data.join("config.toml")
    }
}

impl ClusterFile {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("cluster.json")
    }

    /// Reads the file; `None` when nothing was ever started in `data_dir`.
    pub fn load(data_dir: &Path) -> anyhow::Result<Option<ClusterFile>> {
        let path = Self::path(data_dir);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces the file atomically, so that a reader never sees a part of it.
    pub fn save(&self, data_dir: &Path) -> anyhow::Result<()> {
        Ok(quorate_pki::write_private(&Self::path(data_dir), &serde_json::to_vec_pretty(self)?)?)
    }

    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &ClusterMember> {
        self.members.iter().filter(move |member| member.role == role)
    }

    pub fn count(&self, role: Role) -> usize {
        self.with_role(role).count()
    }
}
