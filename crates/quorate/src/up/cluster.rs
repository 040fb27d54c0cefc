//! `cluster.json`: who is in the cluster, under which process, and where each listens.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::{MemberSpec, Runtime};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ClusterFile {
    /// Marks the cluster's containers on an engine that others use too.
    pub name: String,
    pub runtime: Runtime,
    pub members: Vec<ClusterMember>,
    /// Who formed the quorum. Who is in it now is the quorum's to say.
    pub founders: Vec<MemberSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Worker,
}

/// One process. Of the addresses, which are URLs, a member has those that its role has.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ClusterMember {
    pub name: String,
    pub role: Role,
    /// 0 before its first start.
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
    /// The token with which a master has joined that is no founder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
}

impl ClusterMember {
    /// Its configuration file, which also tells its process from an unrelated one that got the same pid.
    pub fn config(&self) -> PathBuf {
        self.data.join("config.toml")
    }
}

impl ClusterFile {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("cluster.json")
    }

    /// `None` when nothing was ever started in `data_dir`.
    pub fn load(data_dir: &Path) -> anyhow::Result<Option<ClusterFile>> {
        let path = Self::path(data_dir);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces the file at once, so that a reader never sees half of it.
    pub fn save(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = Self::path(data_dir);
        let partial = path.with_extension("json.partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &ClusterMember> {
        self.members.iter().filter(move |member| member.role == role)
    }

    pub fn count(&self, role: Role) -> usize {
        self.with_role(role).count()
    }
}
