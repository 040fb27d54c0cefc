//! Connections of the clients and their distribution over the members, identical for both systems.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient, WatchClient};

/// Maximum number of connections, 16 to each of three members. More clients share them.
pub const MAX_CONNECTIONS: usize = 48;
/// Time after which an operation counts as failed.
pub const OPERATION_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Connections that are assigned to the members, and to the clients, round-robin.
pub struct Pool {
    connections: Vec<Client>,
}

impl Pool {
    /// Opens a connection for each client, up to [`MAX_CONNECTIONS`]. The first one goes to the first endpoint.
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

/// Creates a client of one member. It connects with its first request.
pub async fn connect(endpoint: &str) -> anyhow::Result<Client> {
    let options = ConnectOptions::new().with_timeout(OPERATION_WITHIN).with_connect_timeout(CONNECT_WITHIN);
    Ok(Client::connect([endpoint], Some(options)).await?)
}
