//! The addresses of this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::Context;

/// Never assigned (RFC 5737): the way there is the way to everywhere.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The address from which this machine reaches one of these `https://host:port` or `host:port`.
///
/// # Errors
/// When no route leads to any of them.
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

/// Sends nothing: a connected UDP socket only looks the route up.
fn from(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// The address under which others most likely reach this machine: that of its way out, or its first.
///
/// # Errors
/// When it has none but its loopback address.
pub fn own() -> anyhow::Result<IpAddr> {
    if let Ok(address) = from(ANYWHERE) {
        return Ok(address);
    }
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
    // IPv4 first.
    addresses.min_by_key(IpAddr::is_ipv6).context("this machine has no address but its loopback; give --advertise")
}

/// `host:port`, with the brackets that an IPv6 address needs.
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
    fn a_route_tells_the_own_address() {
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
