//! Transactions over several keys, whose writes must be visible together.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::connection::Roaming;
use super::registers::Known;
use super::{Context, PREFIX, Recorded};
use crate::history::{Api, Transaction};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Runs until the clients are stopped.
pub async fn run(context: Context, name: String, seed: u64) -> Recorded {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = Roaming::new(&context, &name, &mut rng);
    let mut known = Known::default();
    let mut recorded = Vec::new();
    while context.pause(&mut rng).await {
        let (slot, age) = context.pairs.pick(&mut rng);
        let object = format!("{PREFIX}txn/{slot}.{age}");
        let value = format!("{name}.{}", recorded.len());
        let (api, request) = choose(&object, &value, &known, &mut rng);
        let operation = client.call(api, &object, request, &mut rng).await;
        known.note(&operation);
        recorded.push(operation);
    }
    recorded
}

fn choose(object: &str, value: &str, known: &Known, rng: &mut StdRng) -> (Api, Transaction) {
    let mut keys = KEYS.map(|key| format!("{object}/{key}"));
    let read_all = Transaction { reads: keys.to_vec(), ..Transaction::default() };
    keys.shuffle(rng);
    let write = |key: &String, mark: usize| (key.clone(), Some(format!("{value}.{mark}")));
    let writes = vec![write(&keys[0], 0), write(&keys[1], 1)];
    let request = match rng.random_range(0..100) {
        0..30 => read_all,
        30..35 => return (Api::EtcdStale, read_all),
        // An unconditional write that also reads the old values.
        35..55 => Transaction { writes, reads: keys[..2].to_vec(), ..Transaction::default() },
        // One key is deleted.
        55..60 => Transaction {
            writes: vec![write(&keys[0], 0), (keys[1].clone(), None)],
            reads: read_all.reads,
            ..Transaction::default()
        },
        // If two keys have the values that this client remembers, one of them and a third are written.
        _ => Transaction {
            expect: [&keys[0], &keys[2]].map(|key| (key.clone(), known.get(key))).to_vec(),
            writes,
            reads: keys[..3].to_vec(),
        },
    };
    (Api::Etcd, request)
}
