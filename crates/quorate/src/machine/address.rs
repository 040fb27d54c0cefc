//! The addresses of this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::Context;

/// Address that is never assigned (RFC 5737). The route to it is the default route.
const UNASSIGNED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Returns the local address from which this machine reaches one of these masters (`https://host:port` or `host:port`).
///
/// # Errors
/// Fails when no route leads to any of them.
pub fn towards(masters: &[String]) -> anyhow::Result<IpAddr> {
    let mut problem = anyhow::anyhow!("no master is named");
    for master in masters {
        let host = master.trim_start_matches("https://").trim_end_matches('/');
        match host.to_socket_addrs().and_then(|mut found| found.next().map_or(Err(not_found()), from)) {
            Ok(address) => return Ok(address),
            Err(error) => problem = anyhow::Error::new(error).context(format!("cannot reach {host}")),
        }
    }
    Err(problem)
}

fn not_found() -> std::io::Error {
    std::io::Error::from(std::io::ErrorKind::NotFound)
}

/// Returns the local address of the route to `to`. Nothing is sent, because connecting a UDP socket only looks up the
/// route.
fn from(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// Returns the address under which others most likely reach this machine: the one of the default route, or its first.
///
/// # Errors
/// Fails when the machine has only loopback addresses.
pub fn own() -> anyhow::Result<IpAddr> {
    if let Ok(address) = from(UNASSIGNED) {
        return Ok(address);
    }
    // IPv4 addresses are preferred.
    let first = all()?.into_iter().min_by_key(IpAddr::is_ipv6);
    first.context("this machine has only loopback addresses; give --advertise")
}

/// Returns the addresses of this machine's interfaces, without loopback and link-local ones.
///
/// # Errors
/// Fails when the interfaces cannot be listed.
pub fn all() -> anyhow::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs().context("cannot list this machine's addresses")?;
    let addresses = addresses.filter_map(|interface| {
        let address = interface.address?;
        let address: IpAddr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => v4.ip().into(),
            (_, Some(v6)) if v6.ip().segments()[0] & 0xffc0 != 0xfe80 => v6.ip().into(),
            _ => return None,
        };
        (!address.is_loopback()).then_some(address)
    });
    Ok(addresses.collect())
}

/// Returns `host:port`, with brackets around an IPv6 address.
pub fn with_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_determines_the_local_address() {
        let loopback = towards(&["https://127.0.0.1:6443".to_owned()]).expect("a route");
        assert_eq!(loopback, IpAddr::from([127, 0, 0, 1]));
        assert!(towards(&[]).is_err());
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        let shown = ["10.0.0.1", "fd00::1", "m1.example"].map(|host| with_port(host, 1));
        assert_eq!(shown, ["10.0.0.1:1", "[fd00::1]:1", "m1.example:1"]);
    }
}
