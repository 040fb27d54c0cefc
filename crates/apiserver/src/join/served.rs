//! The hosts of the masters' serving certificates, which each master publishes. A master knows only its own `tls-names`,
//! and must not sign a certificate for those of another one.

use std::collections::HashMap;

use quorate_api::Status;
use serde::{Deserialize, Serialize};

use super::rows;
use crate::api::Api;

pub(super) const PREFIX: &str = "/quorate/served/";

/// The published hosts of one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    master: String,
    hosts: Vec<String>,
}

/// Publishes the hosts of the serving certificate of the master `name`, so that no worker gets a certificate for one of
/// them.
///
/// # Errors
/// Those of the store.
pub async fn publish_hosts(api: &Api, name: &str, hosts: &[String]) -> Result<(), Status> {
    let served = Served { master: name.to_owned(), hosts: hosts.to_vec() };
    loop {
        let row = rows::read::<Served>(api.store(), format!("{PREFIX}{name}")).await?;
        if row.value.as_ref() == Some(&served)
            || rows::commit(api.store(), vec![row.unchanged()], vec![row.put(&served)?]).await?
        {
            return Ok(());
        }
    }
}

/// Returns the published hosts by the master's name, by a linearizable read. Masters that were removed may be among them.
pub(super) async fn read_all(api: &Api) -> Result<HashMap<String, Vec<String>>, Status> {
    let rows = rows::read_all::<Served>(api.store(), PREFIX).await?;
    Ok(rows.into_iter().filter_map(|row| row.value).map(|served| (served.master, served.hosts)).collect())
}
