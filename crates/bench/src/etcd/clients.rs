//! The clients: how they connect, and how they are spread over the members. The same for both systems.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient, WatchClient};

/// Clients share connections beyond this many: 16 to each of three members.
pub const MAX_CONNECTIONS: usize = 48;
/// After this long an operation counts as failed.
pub const OPERATION_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Connections to the members in turn; clients use these in turn.
pub struct Pool {
    connections: Vec<Client>,
}

impl Pool {
    /// A connection for each client up to [`MAX_CONNECTIONS`], the first to the first endpoint.
    pub async fn open(endpoints: &[String], clients: usize) -> anyhow::Result<Pool> {
        let mut connections = Vec::new();
        for (_, endpoint) in (0..clients.min(MAX_CONNECTIONS)).zip(endpoints.iter().cycle()) {
            connections.push(connect(endpoint).await?);
        }
        Ok(Pool { connections })
    }

    pub fn kv(&self, client: usize) -> KvClient {
        self.connections[client % self.connections.len()].kv_client()
    }

    pub fn watch(&self, client: usize) -> WatchClient {
        self.connections[client % self.connections.len()].watch_client()
    }
}

/// A client of one member alone. It connects with its first request.
pub async fn connect(endpoint: &str) -> anyhow::Result<Client> {
    let options = ConnectOptions::new().with_timeout(OPERATION_WITHIN).with_connect_timeout(CONNECT_WITHIN);
    Ok(Client::connect([endpoint], Some(options)).await?)
}
