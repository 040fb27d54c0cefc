//! Reads, writes, deletions and compare-and-swaps of single keys that clients share.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::connection::Roaming;
use super::{Context, PREFIX, Recorded};
use crate::history::{Api, Operation, Outcome, Transaction, Value};

/// Runs until the clients are stopped.
pub async fn run(context: Context, name: String, seed: u64) -> Recorded {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = Roaming::new(&context, &name, &mut rng);
    let mut known = Known::default();
    let mut recorded = Vec::new();
    while context.pause(&mut rng).await {
        let (slot, age) = context.keys.pick(&mut rng);
        let key = format!("{PREFIX}reg/{slot}.{age}");
        let value = format!("{name}.{}", recorded.len());
        let (api, request) = choose(&key, value, known.get(&key), &mut rng);
        let operation = client.call(api, &key, request, &mut rng).await;
        known.note(&operation);
        recorded.push(operation);
    }
    recorded
}

fn choose(key: &str, value: String, known: Value, rng: &mut StdRng) -> (Api, Transaction) {
    let request = match rng.random_range(0..100) {
        0..30 => Transaction::get(key),
        30..37 => return (Api::EtcdStale, Transaction::get(key)),
        37..50 => Transaction::put(key, value),
        50..63 => Transaction { reads: vec![key.to_owned()], ..Transaction::put(key, value) },
        63..67 => Transaction { reads: vec![key.to_owned()], ..Transaction::delete(key) },
        _ => Transaction::compare_and_swap(key, known, value),
    };
    (Api::Etcd, request)
}

/// Values that a client last saw or wrote. They may be outdated.
#[derive(Default)]
pub struct Known {
    values: HashMap<String, Value>,
}

impl Known {
    #[must_use]
    pub fn get(&self, key: &str) -> Value {
        self.values.get(key).cloned().flatten()
    }

    pub fn note(&mut self, operation: &Operation) {
        let Outcome::Done { succeeded, observed, .. } = &operation.outcome else { return };
        let written = if *succeeded { &operation.request.writes[..] } else { &[] };
        // Old objects are not used again.
        if self.values.len() > 1000 {
            self.values.clear();
        }
        self.values.extend(observed.iter().chain(written).cloned());
    }
}
