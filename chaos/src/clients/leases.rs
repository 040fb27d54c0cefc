//! Leases with one key each: granted, kept alive for a while, and then revoked or abandoned.

use std::time::Duration;

use etcd_client::{Error, PutOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use super::{CALL_DEADLINE, Connection, Context};
use crate::history::{LeaseEvent, LeaseLog, Micros};

/// Prefix of keys with leases.
pub const LEASED: &str = "chaos/lease/";

/// Runs until the clients are stopped. The last lease is abandoned.
pub async fn run(context: Context, name: String, seed: u64) -> Vec<LeaseLog> {
    let mut rng = StdRng::seed_from_u64(seed);
    let member = rng.random_range(0..context.layout.places.len());
    let connection = Connection::new(context.clone(), &name, member);
    let mut holder = Holder { context, connection, rng };
    let mut leases = Vec::new();
    // A key whose write has an unknown outcome is not reused.
    let mut attempts: u64 = 0;
    while holder.context.pause(&mut holder.rng).await {
        let key = format!("{LEASED}{name}.{attempts}");
        attempts += 1;
        match holder.grant(&key).await {
            Some(mut lease) => {
                holder.hold(&mut lease).await;
                leases.push(lease);
            }
            None => holder.move_on(),
        }
    }
    leases
}

struct Holder {
    context: Context,
    connection: Connection,
    rng: StdRng,
}

/// An answer with the times of its call and return.
struct Timed<T> {
    called: Micros,
    returned: Micros,
    answer: anyhow::Result<T>,
}

impl Holder {
    fn move_on(&mut self) {
        self.connection.leave(&mut self.rng);
    }

    /// Calls with a deadline. After a failure the next call goes to another member.
    async fn call<T>(&mut self, what: impl AsyncFnOnce(&mut etcd_client::Client) -> Result<T, Error>) -> Timed<T> {
        let called = self.context.clock.now();
        let exchange = async {
            let client = self.connection.client().await?;
            anyhow::Ok(what(client).await?)
        };
        let answer = timeout(CALL_DEADLINE, exchange).await.unwrap_or_else(|error| Err(error.into()));
        let returned = self.context.clock.now();
        if answer.is_err() {
            self.move_on();
        }
        Timed { called, returned, answer }
    }

    /// Returns a lease with a key if both were acknowledged. Otherwise a key that was written anyway expires with its
    /// lease.
    async fn grant(&mut self, key: &str) -> Option<LeaseLog> {
        let ttl = self.rng.random_range(2..7);
        let granted = self.call(async |client| client.lease_grant(ttl, None).await).await;
        let (called, returned) = (granted.called, granted.returned);
        let lease = granted.answer.ok()?;
        let (id, ttl_seconds) = (lease.id(), u64::try_from(lease.ttl()).ok()?);
        let options = PutOptions::new().with_lease(id);
        let put = self.call(async |client| client.put(key, "leased", Some(options)).await).await;
        put.answer.ok()?;
        let events = vec![
            LeaseEvent::Kept { called, returned, ttl_seconds },
            LeaseEvent::Attached { called: put.called, returned: put.returned },
        ];
        Some(LeaseLog { id, key: key.to_owned(), events, left_over: false })
    }

    /// Keeps a lease alive for a while, reads its key from time to time, and then revokes or abandons it.
    async fn hold(&mut self, lease: &mut LeaseLog) {
        let until = Instant::now() + Duration::from_millis(self.rng.random_range(0..20_000));
        let ttl = match lease.events[0] {
            LeaseEvent::Kept { ttl_seconds, .. } => ttl_seconds,
            _ => 1,
        };
        while Instant::now() < until {
            let pause = Duration::from_millis(self.rng.random_range(100..ttl * 400));
            if self.context.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let event = if self.rng.random_bool(0.5) {
                self.keep_alive(lease.id, ttl).await
            } else {
                self.read(&lease.key).await
            };
            let is_gone = matches!(event, Some(LeaseEvent::NotFound { .. } | LeaseEvent::Read { found: false, .. }));
            lease.events.extend(event);
            if is_gone {
                return;
            }
        }
        if self.rng.random_bool(0.5) {
            let revoked = self.revoke(lease.id).await;
            lease.events.push(revoked);
            let read = self.read(&lease.key).await;
            lease.events.extend(read);
        }
    }

    async fn keep_alive(&mut self, id: i64, ttl_seconds: u64) -> Option<LeaseEvent> {
        let kept = self.call(async |client| client.lease_keep_alive(id).await).await;
        let (called, returned) = (kept.called, kept.returned);
        match kept.answer {
            Ok(_) => Some(LeaseEvent::Kept { called, returned, ttl_seconds }),
            // The client library reports a keep-alive answer with TTL 0 with this text.
            Err(error) if error.to_string().contains("lease not found") => {
                Some(LeaseEvent::NotFound { called, returned })
            }
            Err(_) => None,
        }
    }

    async fn read(&mut self, key: &str) -> Option<LeaseEvent> {
        let read = self.call(async |client| client.get(key, None).await).await;
        let found = !read.answer.ok()?.kvs().is_empty();
        Some(LeaseEvent::Read { called: read.called, returned: read.returned, found })
    }

    async fn revoke(&mut self, id: i64) -> LeaseEvent {
        let revoked = self.call(async |client| client.lease_revoke(id).await).await;
        LeaseEvent::Revoked { called: revoked.called, returned: revoked.returned, acknowledged: revoked.answer.is_ok() }
    }
}
