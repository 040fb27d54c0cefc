//! Ports that are free now and stay reserved while a member is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::bail;
use rand::Rng;

/// Ports below the range that Linux uses for outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Hands out addresses on the loopback interface. They do not depend on the run's seed, because parallel runs of one
/// seed must not collide. Each run also binds its ports for UDP, which no member uses, to reserve them.
#[derive(Debug, Default)]
pub struct Ports {
    held: Vec<UdpSocket>,
}

impl Ports {
    /// # Errors
    /// When no port is left.
    pub fn next(&mut self) -> anyhow::Result<SocketAddr> {
        for _ in 0..1000 {
            let port = rand::rng().random_range(RANGE);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let Ok(held) = UdpSocket::bind(address) else { continue };
            if TcpListener::bind(address).is_ok() {
                self.held.push(held);
                return Ok(address);
            }
        }
        bail!("no free port between {} and {}", RANGE.start, RANGE.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_handed_out_once_while_its_run_lasts() {
        let mut ports = Ports::default();
        let address = ports.next().expect("a free port");
        // No process listens there, as when a member is down, but another run must still skip the port.
        assert!(TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_err());
        drop(ports);
        assert!(UdpSocket::bind(address).is_ok());
    }
}
