//! The network between the members, and between workers and members: a TCP proxy for each ordered pair, all under one set of
//! rules.
//!
//! A member reaches each of its peers through a listener of its own, and a worker each member's API, so the proxy knows both ends of every connection
//! and each of its directions can be troubled by itself. A cut path behaves as one behind a broken switch: nothing comes
//! through, connections stay open, and what was sent arrives when the path is whole again. A member whose process is
//! dead refuses connections, as its machine would.

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

/// What a first retransmission of TCP waits at least (Linux' `TCP_RTO_MIN`).
const RETRANSMISSION: Duration = Duration::from_millis(200);
const BIND_RETRY: Duration = Duration::from_millis(10);
const PIECE_BYTES: usize = 16 << 10;
/// Pieces that may be under way in one direction of a connection.
const IN_FLIGHT: usize = 256;

/// Runs all proxies, for ever.
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
            // What connected to the old process is its kernel's business: it closes with it.
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
    /// Carries until one end closes or breaks, and then closes both.
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
        // An orderly end of one direction passes through it like data; the other one may go on.
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

    /// What the sender's failpoint does here. Only what members send to each other is a point of theirs.
    fn pass(&self, phase: Phase) -> Passing {
        match (self.from, self.to) {
            (End::Member(from), End::Member(_)) => self.failpoints.pass(from, Point::Send, phase),
            _ => Passing::default(),
        }
    }

    /// Returns when the path is not cut.
    async fn whole(&mut self) {
        let (from, to) = (self.from, self.to);
        // The world ends with the run.
        if self.world.wait_for(|world| !world.path(from, to).cut).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn carry(self, from: OwnedReadHalf, to: OwnedWriteHalf, rng: StdRng) -> Result<(), Broken> {
        let (pieces, arriving) = mpsc::channel(IN_FLIGHT);
        let sending = self.clone().send(from, pieces, rng);
        tokio::try_join!(sending, self.deliver(arriving, to)).map(|_| ())
    }

    /// Takes what is sent, and decides when each piece arrives.
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
            // A cut path carries no news of an end either.
            self.whole().await;
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
            // TCP keeps the order: what comes after a lost piece waits for it.
            last = last.max(Instant::now() + delay);
            if pieces.send((last, piece)).await.is_err() || length == 0 {
                return Ok(());
            }
            let after = self.pass(Phase::After);
            sleep(after.pause).await;
            if after.is_dead {
                // What is under way still arrives.
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
            self.whole().await;
            if piece.is_empty() {
                return to.shutdown().await.map_err(|_| Broken);
            }
            to.write_all(&piece).await.map_err(|_| Broken)?;
        }
        Ok(())
    }
}
