//! Ports that are free now, and stay free while a member is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::bail;
use rand::Rng;

/// Below the range from which Linux takes the ports of outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Hands out addresses on the loopback interface. Not from the run's seed: they say nothing about the schedule, and runs
/// beside each other must not meet. So each run holds its ports' numbers for UDP, which no member uses.
#[derive(Debug, Default)]
pub struct Ports {
    held: Vec<UdpSocket>,
}

impl Ports {
    /// # Errors
    /// When none is left.
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
        // Nobody listens there, as when a member is down; another run still has to look elsewhere.
        assert!(TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_err());
        drop(ports);
        assert!(UdpSocket::bind(address).is_ok());
    }
}
