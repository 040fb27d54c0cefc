//! The upgrade of a request: which protocol carries the streams. Pure.

use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Refusal;
use super::websocket::{Channels, Coding};

const SPDY: &str = "SPDY/3.1";
/// The protocol of a connection that only copies bytes.
const RAW: &str = "tcp";
const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

const fn channels(coding: Coding, closes: bool) -> Carrier {
    Carrier::Channels(Channels { coding, closes })
}

/// The WebSocket protocols of exec and attach. A client that names none gets the oldest.
const COMMAND_CHANNELS: [(&str, Carrier, u8); 6] = [
    ("v5.channel.k8s.io", channels(Coding::Binary, true), 5),
    ("v4.channel.k8s.io", channels(Coding::Binary, false), 4),
    ("v4.base64.channel.k8s.io", channels(Coding::Base64, false), 4),
    ("channel.k8s.io", channels(Coding::Binary, false), 1),
    ("base64.channel.k8s.io", channels(Coding::Base64, false), 1),
    ("", channels(Coding::Binary, false), 1),
];
const COMMAND_SPDY: [(&str, Carrier, u8); 4] = [
    ("v4.channel.k8s.io", Carrier::Spdy, 4),
    ("v3.channel.k8s.io", Carrier::Spdy, 3),
    ("v2.channel.k8s.io", Carrier::Spdy, 2),
    ("channel.k8s.io", Carrier::Spdy, 1),
];
const FORWARD_CHANNELS: [(&str, Carrier, u8); 5] = [
    ("SPDY/3.1+portforward.k8s.io", Carrier::TunnelledSpdy, 1),
    // The name of the tunnel in the first versions that had it.
    ("v2.portforward.k8s.io", Carrier::TunnelledSpdy, 1),
    // The kubelet ignores the signal that closes a channel; here it ends the client's side of a connection.
    ("v4.channel.k8s.io", channels(Coding::Binary, true), 4),
    ("v4.base64.channel.k8s.io", channels(Coding::Base64, false), 4),
    ("", channels(Coding::Binary, false), 4),
];
const FORWARD_SPDY: [(&str, Carrier, u8); 1] = [("portforward.k8s.io", Carrier::Spdy, 1)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Exec and attach.
    Command,
    Forward,
}

/// The transport of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Channels(Channels),
    Spdy,
    /// SPDY in the binary messages of a WebSocket.
    TunnelledSpdy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub carrier: Carrier,
    /// The version of the protocol within the carrier.
    pub version: u8,
    /// Headers of the response that switches protocols.
    pub headers: HeaderMap,
}

fn refusal(code: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal::new(code, format!("unable to upgrade: {}", message.into()))
}

/// Returns the elements of a header that is a list.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// Returns the protocols that a request asks to upgrade to.
fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let upgrades = list(headers, &CONNECTION).any(|element| element.eq_ignore_ascii_case("upgrade"));
    list(headers, &UPGRADE).filter(move |_| upgrades)
}

/// Agrees on a connection without a protocol of its own, and returns the headers of the response.
///
/// # Errors
/// The response for a request that does not ask for one.
pub(super) fn raw(headers: &HeaderMap) -> Result<HeaderMap, Refusal> {
    if protocols(headers).any(|protocol| protocol.eq_ignore_ascii_case(RAW)) {
        return Ok(switched(RAW));
    }
    Err(refusal(StatusCode::BAD_REQUEST, "the request does not ask for a connection"))
}

/// Agrees on the client's first protocol that is served.
///
/// # Errors
/// The response for a request that is no upgrade, or names only protocols that are not served.
pub(super) fn negotiate(purpose: Purpose, headers: &HeaderMap) -> Result<Agreed, Refusal> {
    match protocols(headers).find(|p| p.eq_ignore_ascii_case("websocket") || p.eq_ignore_ascii_case(SPDY)) {
        Some(protocol) if protocol.eq_ignore_ascii_case(SPDY) => spdy(purpose, headers),
        Some(_) => websocket(purpose, headers),
        None => Err(refusal(StatusCode::BAD_REQUEST, "missing upgrade headers in request")),
    }
}

/// Returns the headers of a response that switches protocols.
fn switched(upgrade: &'static str) -> HeaderMap {
    let headers = [(CONNECTION, HeaderValue::from_static("Upgrade")), (UPGRADE, HeaderValue::from_static(upgrade))];
    headers.into_iter().collect()
}

fn agreed(carrier: Carrier, version: u8, upgrade: &'static str) -> Agreed {
    Agreed { carrier, version, headers: switched(upgrade) }
}

/// Finds the client's first protocol in a table. A client that names none gets the table's last.
fn choose(asked: &[&str], served: &[(&'static str, Carrier, u8)]) -> Result<(&'static str, Carrier, u8), String> {
    let find = |name: &&str| served.iter().find(|(served, _, _)| served == name).copied();
    let found = if asked.is_empty() { served.last().copied() } else { asked.iter().find_map(find) };
    found.ok_or_else(|| {
        let names: Vec<_> = served.iter().map(|(name, _, _)| *name).filter(|name| !name.is_empty()).collect();
        format!("unable to negotiate protocol: client supports {asked:?}, server accepts {names:?}")
    })
}

fn websocket(purpose: Purpose, headers: &HeaderMap) -> Result<Agreed, Refusal> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, message);
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("missing Sec-WebSocket-Key"))?;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("Sec-WebSocket-Version must be 13"));
    }
    let asked: Vec<_> = list(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let served: &[_] = match purpose {
        Purpose::Command => &COMMAND_CHANNELS,
        Purpose::Forward => &FORWARD_CHANNELS,
    };
    let (name, carrier, version) = choose(&asked, served).map_err(|message| refusal(StatusCode::FORBIDDEN, message))?;
    let mut agreed = agreed(carrier, version, "websocket");
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| bad("bad Sec-WebSocket-Key"))?;
    agreed.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !name.is_empty() {
        agreed.headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(agreed)
}

fn spdy(purpose: Purpose, headers: &HeaderMap) -> Result<Agreed, Refusal> {
    let asked: Vec<_> = list(headers, &STREAM_VERSION).collect();
    let served: &[_] = match purpose {
        Purpose::Command => &COMMAND_SPDY,
        Purpose::Forward => &FORWARD_SPDY,
    };
    let (name, carrier, version) = choose(&asked, served).map_err(|message| {
        let mut refusal = refusal(StatusCode::FORBIDDEN, message);
        for (name, _, _) in served {
            refusal.headers.append(ACCEPTED_VERSIONS, HeaderValue::from_static(name));
        }
        refusal
    })?;
    let mut agreed = agreed(carrier, version, SPDY);
    if !asked.is_empty() {
        agreed.headers.insert(STREAM_VERSION, HeaderValue::from_static(name));
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn websocket(protocols: &'static str) -> HeaderMap {
        let mut headers = request(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ]);
        if !protocols.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
        }
        headers
    }

    #[test]
    fn the_clients_first_served_protocol_is_chosen() {
        use Purpose::{Command, Forward};
        let (binary, base64) = (channels(Coding::Binary, false), channels(Coding::Base64, false));
        let cases = [
            (Command, "v5.channel.k8s.io,v4.channel.k8s.io", "v5.channel.k8s.io", channels(Coding::Binary, true), 5),
            (Command, "v9.channel.k8s.io, v4.base64.channel.k8s.io", "v4.base64.channel.k8s.io", base64, 4),
            (Command, "base64.channel.k8s.io", "base64.channel.k8s.io", base64, 1),
            (Command, "", "", binary, 1),
            (Forward, "SPDY/3.1+portforward.k8s.io", "SPDY/3.1+portforward.k8s.io", Carrier::TunnelledSpdy, 1),
            (Forward, "v4.channel.k8s.io", "v4.channel.k8s.io", channels(Coding::Binary, true), 4),
        ];
        for (purpose, asked, name, carrier, version) in cases {
            let agreed = negotiate(purpose, &websocket(asked)).expect("a served protocol");
            let answered = agreed.headers.get(SEC_WEBSOCKET_PROTOCOL).map_or("", |name| name.to_str().expect("text"));
            assert_eq!((answered, agreed.carrier, agreed.version), (name, carrier, version), "{asked}");
            assert_eq!(agreed.headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455, section 1.3");
        }
        let old = request(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ]);
        let agreed = negotiate(Command, &old).expect("a served protocol");
        assert_eq!((agreed.carrier, agreed.version), (Carrier::Spdy, 3));
        assert_eq!(agreed.headers[STREAM_VERSION], "v3.channel.k8s.io");
        let oldest = request(&[("connection", "Upgrade"), ("upgrade", "spdy/3.1")]);
        assert_eq!(negotiate(Command, &oldest).map(|agreed| agreed.version), Ok(1));
    }

    #[test]
    fn requests_that_cannot_be_upgraded_are_refused() {
        let code = |purpose, headers: &HeaderMap| negotiate(purpose, headers).map(|_| ()).map_err(|r| r.code.as_u16());
        assert_eq!(code(Purpose::Command, &HeaderMap::new()), Err(400));
        assert_eq!(raw(&request(&[("upgrade", "tcp")])).map_err(|r| r.code.as_u16()), Err(400));
        assert_eq!(raw(&websocket("")).map_err(|r| r.code.as_u16()), Err(400));
        assert_eq!(code(Purpose::Command, &request(&[("upgrade", "websocket")])), Err(400));
        assert_eq!(code(Purpose::Command, &request(&[("connection", "upgrade"), ("upgrade", "websocket")])), Err(400));
        assert_eq!(code(Purpose::Command, &websocket("v9.channel.k8s.io")), Err(403));
        assert_eq!(code(Purpose::Forward, &websocket("v5.channel.k8s.io")), Err(403));
        let unknown =
            request(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")]);
        let refusal = negotiate(Purpose::Command, &unknown).expect_err("no common protocol");
        assert_eq!((refusal.code.as_u16(), refusal.headers.get_all(ACCEPTED_VERSIONS).iter().count()), (403, 4));
    }
}
