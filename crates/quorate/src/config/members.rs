//! Members of the quorum, as text.

use std::fmt;
use std::str::FromStr;

/// A master: `id=1,name=m1,peer=10.0.0.1:2380,api=https://10.0.0.1:6443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    pub id: u64,
    pub name: String,
    /// `host:port` of the peer transport.
    pub peer: String,
    /// `https://host:port` of the REST API.
    pub api: String,
    /// `https://host:port` of the etcd API; empty when it is not served.
    pub etcd: String,
}

impl FromStr for MemberSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut id, mut name, mut peer, mut api, mut etcd) = (None, None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not key=value"))?;
            let slot = match key.trim() {
                "id" => &mut id,
                "name" => &mut name,
                "peer" => &mut peer,
                "api" => &mut api,
                "etcd" => &mut etcd,
                other => return Err(format!("unknown key `{other}`; a member has id, name, peer, api and etcd")),
            };
            if slot.replace(value.trim().to_owned()).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        let need = |value: Option<String>, key: &str| {
            value.filter(|v| !v.is_empty()).ok_or_else(|| format!("`{key}` is missing in member `{text}`"))
        };
        let id = need(id, "id")?;
        let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(|| format!("id `{id}` is not a positive number"))?;
        Ok(MemberSpec {
            id,
            name: need(name, "name")?,
            peer: need(peer, "peer")?,
            api: need(api, "api")?,
            etcd: etcd.unwrap_or_default(),
        })
    }
}

impl fmt::Display for MemberSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id={},name={},peer={},api={}", self.id, self.name, self.peer, self.api)?;
        if self.etcd.is_empty() { Ok(()) } else { write!(f, ",etcd={}", self.etcd) }
    }
}

impl<'de> serde::Deserialize<'de> for MemberSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for MemberSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
