//! The network between the members, and between workers and members: a TCP proxy for each ordered pair, all controlled
//! by one world.
//!
//! A member reaches each of its peers, and a worker each member's API, through a listener of its own. So the proxy
//! knows both ends of every connection and can disturb each direction separately. A cut path behaves like a broken
//! switch: nothing passes, connections stay open, and sent data arrives when the path works again. The proxy of a dead
//! member refuses connections, as the member's machine would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::failpoints::{Failpoints, Passing};
use super::layout::Layout;
use crate::world::{End, MemberIndex, Path, Phase, Point, World};

/// Minimum delay of TCP's first retransmission (`TCP_RTO_MIN` of Linux).
const RETRANSMISSION: Duration = Duration::from_millis(200);
const BIND_RETRY: Duration = Duration::from_millis(10);
const PIECE_BYTES: usize = 16 << 10;
/// Maximum number of chunks in flight in one direction of a connection.
const IN_FLIGHT: usize = 256;

/// Runs all proxies until the future is dropped.
pub async fn run(layout: Arc<Layout>, world: watch::Receiver<World>, failpoints: Arc<Failpoints>, seed: u64) {
    let mut links = JoinSet::new();
    for (from, place) in layout.places.iter().enumerate() {
        for (to, listen) in place.peers.iter().enumerate().filter(|(to, _)| *to != from) {
            let (target, world, failpoints) = (layout.places[to].peer, world.clone(), failpoints.clone());
            let link = Link { from: End::Member(from), to, listen: *listen, target, world, failpoints };
            let seed = seed ^ ((from as u64) << 32 | (to as u64) << 40);
            links.spawn(link.run(seed));
        }
    }
    for (worker, place) in layout.workers.iter().enumerate() {
        for (to, listen) in place.via.iter().enumerate() {
            let (target, world, failpoints) = (layout.places[to].api, world.clone(), failpoints.clone());
            let link = Link { from: End::Worker(worker), to, listen: *listen, target, world, failpoints };
            let seed = seed ^ ((worker as u64) << 48 | (to as u64) << 40);
            links.spawn(link.run(seed));
        }
    }
    while links.join_next().await.is_some() {}
}

/// The connections that a member or a worker opens to a member.
struct Link {
    from: End,
    to: MemberIndex,
    listen: SocketAddr,
    target: SocketAddr,
    world: watch::Receiver<World>,
    failpoints: Arc<Failpoints>,
}

impl Link {
    async fn run(mut self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut connections = JoinSet::new();
        let to = self.to;
        loop {
            if self.world.wait_for(|world| !world.members[to].down).await.is_err() {
                return;
            }
            // Connections to the old process close with it, so only the listener needs care.
            let Ok(listener) = TcpListener::bind(self.listen).await else {
                sleep(BIND_RETRY).await;
                continue;
            };
            let mut end = self.world.clone();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let connection = Connection {
                            from: self.from,
                            to: self.to,
                            target: self.target,
                            world: self.world.clone(),
                            failpoints: self.failpoints.clone(),
                        };
                        connections.spawn(connection.run(stream, rng.random()));
                    }
                    down = end.wait_for(|world| world.members[to].down) => {
                        if down.is_err() {
                            return;
                        }
                        break;
                    }
                }
                while connections.try_join_next().is_some() {}
            }
        }
    }
}

struct Connection {
    from: End,
    to: MemberIndex,
    target: SocketAddr,
    world: watch::Receiver<World>,
    failpoints: Arc<Failpoints>,
}

impl Connection {
    /// Forwards data until one end closes or breaks, and then closes both.
    async fn run(self, incoming: TcpStream, seed: u64) {
        let Ok(outgoing) = TcpStream::connect(self.target).await else { return };
        if incoming.set_nodelay(true).and_then(|()| outgoing.set_nodelay(true)).is_err() {
            return;
        }
        let ((incoming_read, incoming_write), (outgoing_read, outgoing_write)) =
            (incoming.into_split(), outgoing.into_split());
        let (from, to) = (self.from, End::Member(self.to));
        let there = Direction { from, to, world: self.world.clone(), failpoints: self.failpoints.clone() };
        let back = Direction { from: to, to: from, world: self.world, failpoints: self.failpoints };
        // The end of one direction is forwarded like data; the other direction may continue.
        let _both = tokio::try_join!(
            there.carry(incoming_read, outgoing_write, StdRng::seed_from_u64(seed)),
            back.carry(outgoing_read, incoming_write, StdRng::seed_from_u64(!seed)),
        );
    }
}

/// The connection is broken.
struct Broken;

#[derive(Clone)]
struct Direction {
    from: End,
    to: End,
    world: watch::Receiver<World>,
    failpoints: Arc<Failpoints>,
}

impl Direction {
    fn path(&self) -> Path {
        self.world.borrow().path(self.from, self.to)
    }

    /// Passes the sender's failpoint. Only messages between members are points.
    fn pass(&self, phase: Phase) -> Passing {
        match (self.from, self.to) {
            (End::Member(from), End::Member(_)) => self.failpoints.pass(from, Point::Send, phase),
            _ => Passing::default(),
        }
    }

    /// Waits until the path is not cut.
    async fn wait_until_open(&mut self) {
        let (from, to) = (self.from, self.to);
        // The sender of the world is dropped at the end of the run.
        if self.world.wait_for(|world| !world.path(from, to).cut).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn carry(self, from: OwnedReadHalf, to: OwnedWriteHalf, rng: StdRng) -> Result<(), Broken> {
        let (pieces, arriving) = mpsc::channel(IN_FLIGHT);
        let sending = self.clone().send(from, pieces, rng);
        tokio::try_join!(sending, self.deliver(arriving, to)).map(|_| ())
    }

    /// Reads the sent data, and decides when each chunk arrives.
    async fn send(
        mut self,
        mut from: OwnedReadHalf,
        pieces: mpsc::Sender<(Instant, Vec<u8>)>,
        mut rng: StdRng,
    ) -> Result<(), Broken> {
        let mut last = Instant::now();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = from.read(&mut piece).await.map_err(|_| Broken);
            // A cut path does not deliver the end of the stream either.
            self.wait_until_open().await;
            let length = read?;
            piece.truncate(length);
            let before = self.pass(Phase::Before);
            sleep(before.pause).await;
            if before.is_dead {
                return Err(Broken);
            }
            let quality = self.path().quality;
            if length > 0 && rng.random_ratio(quality.reset_per_10_000, 10_000) {
                return Err(Broken);
            }
            let jitter = rng.random_range(0..=2 * quality.jitter_ms);
            let mut delay = Duration::from_millis((quality.delay_ms + jitter).saturating_sub(quality.jitter_ms));
            let mut again = RETRANSMISSION;
            while rng.random_ratio(quality.loss_percent.min(90), 100) {
                delay += again;
                again *= 2;
            }
            // TCP keeps the order, so later chunks wait for a lost one.
            last = last.max(Instant::now() + delay);
            if pieces.send((last, piece)).await.is_err() || length == 0 {
                return Ok(());
            }
            let after = self.pass(Phase::After);
            sleep(after.pause).await;
            if after.is_dead {
                // Chunks in flight still arrive.
                return Ok(());
            }
        }
    }

    async fn deliver(
        mut self,
        mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
        mut to: OwnedWriteHalf,
    ) -> Result<(), Broken> {
        while let Some((due, piece)) = arriving.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            self.wait_until_open().await;
            if piece.is_empty() {
                return to.shutdown().await.map_err(|_| Broken);
            }
            to.write_all(&piece).await.map_err(|_| Broken)?;
        }
        Ok(())
    }
}
