//! Observes which member leads, by the members' own metrics.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::clients::Context;
use crate::history::Micros;
use crate::world::MemberIndex;

const EVERY: Duration = Duration::from_millis(150);
const ASK: Duration = Duration::from_millis(250);

/// A member's report, in its metrics, that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Led {
    pub at: Micros,
    pub member: MemberIndex,
    pub term: u64,
}

/// Polls all members until the run ends, publishes the leader of the highest term, and records each member and term
/// once.
pub async fn observe(context: Context, leader: watch::Sender<Option<MemberIndex>>) -> Vec<Led> {
    let mut seen: Vec<Led> = Vec::new();
    while context.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let mut best: Option<(u64, MemberIndex)> = None;
        for (member, place) in context.layout.places.iter().enumerate() {
            let Ok(Ok(Some(term))) = timeout(ASK, led_term(place.metrics)).await else { continue };
            best = best.max(Some((term, member)));
            let is_known = seen.iter().rev().take(20).any(|led| (led.member, led.term) == (member, term));
            if !is_known {
                seen.push(Led { at: context.clock.now(), member, term });
            }
        }
        leader.send_replace(best.map(|(_, member)| member));
    }
    seen
}

/// The term in which a member leads by its metrics; `None` when it does not lead.
async fn led_term(address: SocketAddr) -> anyhow::Result<Option<u64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let gauge = |name: &str| -> anyhow::Result<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name}"))?.trim().parse()?)
    };
    Ok((gauge("quorate_raft_is_leader")? == 1).then_some(gauge("quorate_raft_term")?))
}
