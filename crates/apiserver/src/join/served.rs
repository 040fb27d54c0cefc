//! The hosts of the masters' serving certificates and the addresses of their machines, which each master publishes. A
//! master knows only its own `tls-names`, and must not sign a certificate for those of another one.

use std::collections::HashMap;
use std::net::IpAddr;

use quorate_api::Status;
use serde::{Deserialize, Serialize};

use super::rows;
use crate::api::Api;

pub(super) const PREFIX: &str = "/quorate/served/";

/// The hosts and addresses that one master has published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Served {
    pub master: String,
    pub hosts: Vec<String>,
    /// Addresses of the master's machine. They identify a worker on it when the master is known by a name.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// Publishes the hosts of the serving certificate of the master `name`, so that no worker gets a certificate for one of
/// them, and the addresses of its machine, which may be a worker too.
///
/// # Errors
/// Those of the store.
pub async fn publish_hosts(api: &Api, name: &str, hosts: &[String], addresses: &[IpAddr]) -> Result<(), Status> {
    let served = Served { master: name.to_owned(), hosts: hosts.to_vec(), addresses: addresses.to_vec() };
    loop {
        let row = rows::read::<Served>(api.store(), format!("{PREFIX}{name}")).await?;
        if row.value.as_ref() == Some(&served)
            || rows::commit(api.store(), vec![row.unchanged()], vec![row.put(&served)?]).await?
        {
            return Ok(());
        }
    }
}

/// Returns the published rows by the master's name, by a linearizable read. Masters that were removed may be among them.
pub(super) async fn read_all(api: &Api) -> Result<HashMap<String, Served>, Status> {
    let rows = rows::read_all::<Served>(api.store(), PREFIX).await?;
    Ok(rows.into_iter().filter_map(|row| row.value).map(|served| (served.master.clone(), served)).collect())
}
