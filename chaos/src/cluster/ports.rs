//! Ports that are free now, and stay free while a member is down.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;
use rand::Rng;

/// Below the range from which Linux takes the ports of outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Hands out addresses on the loopback interface. Not from the run's seed: they say nothing about the schedule, and runs
/// beside each other must not meet.
#[derive(Debug, Default)]
pub struct Ports {
    taken: HashSet<u16>,
}

impl Ports {
    /// # Errors
    /// When none is left.
    pub fn next(&mut self) -> anyhow::Result<SocketAddr> {
        for _ in 0..1000 {
            let port = rand::rng().random_range(RANGE);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if self.taken.insert(port) && TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        bail!("no free port between {} and {}", RANGE.start, RANGE.end)
    }
}
