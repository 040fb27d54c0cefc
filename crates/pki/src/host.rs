//! Hosts in certificates: one form for each address and name, so that equal hosts compare equal.

use std::net::IpAddr;

const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Returns the one form of a host: an address without brackets in its shortest form, an IPv4-mapped address as the IPv4
/// address in it, a name in lower case without a final dot.
#[must_use]
pub fn canonical_host(host: &str) -> String {
    let host = host.trim();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase(),
    }
}

/// Parses a host that a person has written, and returns its canonical form. A name may begin with `*.`.
///
/// # Errors
/// When the text is neither an address nor a DNS name.
pub fn parse_host(text: &str) -> Result<String, String> {
    let host = canonical_host(text);
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host);
    }
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
        (1..=MAX_LABEL_BYTES).contains(&bytes.len())
            && bytes.iter().all(is_letter)
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    let labels = host.strip_prefix("*.").unwrap_or(&host);
    // A name whose last label is a number is a mistyped IPv4 address.
    let is_number = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if host.len() <= MAX_NAME_BYTES && labels.split('.').all(is_label) && !is_number {
        return Ok(host);
    }
    Err(format!("{text:?} is neither an IP address nor a DNS name; write it without scheme, port and zone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_one_form() {
        for (text, expected) in [
            ("[::1]", "::1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("FD00:0::0:4", "fd00::4"),
            ("[FD00::4]", "fd00::4"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            (" API.Example. ", "api.example"),
            ("*.Example", "*.example"),
            ("m_1", "m_1"),
        ] {
            assert_eq!(parse_host(text).as_deref(), Ok(expected), "{text:?}");
        }
        for wrong in [
            "",
            ".",
            "*",
            "a..b",
            "m1:6443",
            "https://m1",
            "fe80::1%eth0",
            "[::1]:6443",
            "10.0.0.256",
            "-a",
            "a b",
            "[::1",
        ] {
            assert!(parse_host(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse_host(&"a".repeat(64)).is_err());
    }
}
