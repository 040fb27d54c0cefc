//! Kinds of IP addresses.

use std::net::IpAddr;

/// Returns whether an address means the same machine to every client, so that an endpoint or a pod may have it
/// (`IsGlobalUnicast` of Go's `net`, without loopback). An IPv4 address in IPv6 form is judged as IPv4.
#[must_use]
pub fn is_global_unicast(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_told_apart() {
        for (text, expected) in [
            ("192.0.2.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::1", false),
            ("169.254.1.1", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(is_global_unicast(text.parse().expect("an address")), expected, "{text}");
        }
    }
}
