//! Writes through one member continuously, to show when the quorum accepts no writes.

use std::time::Duration;

use tokio::time::sleep;

use super::connection::Connection;
use super::{Context, PREFIX, Recorded};
use crate::history::{Api, Outcome, Transaction};
use crate::world::MemberIndex;

const EVERY: Duration = Duration::from_millis(100);
/// Number of operations on one key.
const PER_KEY: usize = 300;

/// Runs until the clients are stopped.
pub async fn run(context: Context, name: String, member: MemberIndex) -> Recorded {
    let mut connection = Connection::new(context.clone(), &name, member);
    let mut recorded = Vec::new();
    while context.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let key = format!("{PREFIX}probe/{}.{}", member, recorded.len() / PER_KEY);
        let value = format!("{name}.{}", recorded.len());
        let operation = connection.call(Api::Etcd, &key, Transaction::put(key.as_str(), value)).await;
        if !matches!(operation.outcome, Outcome::Done { .. }) {
            connection.disconnect();
        }
        recorded.push(operation);
    }
    recorded
}
