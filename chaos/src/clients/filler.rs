//! Writes large values to grow the log, so that a member that was down for some seconds needs a snapshot. The writes
//! are not recorded, but the members' hashes cover them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::{CALL_DEADLINE, Connection, Context};

const EVERY: Duration = Duration::from_millis(120);
const KEYS: u32 = 8;
const VALUE_BYTES: usize = 24 << 10;

/// Runs until the clients are stopped.
pub async fn run(context: Context, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let member = rng.random_range(0..context.layout.places.len());
    let mut connection = Connection::new(context.clone(), "filler", member);
    while context.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let key = format!("filler/{}", rng.random_range(0..KEYS));
        // Random bytes do not compress.
        let value: Vec<u8> = (0..VALUE_BYTES).map(|_| rng.random()).collect();
        let call = async {
            let client = connection.client().await?;
            anyhow::Ok(client.put(key, value, None).await?)
        };
        if !matches!(timeout(CALL_DEADLINE, call).await, Ok(Ok(_))) {
            connection.leave(&mut rng);
        }
    }
}
