//! Headers on their way to a backend and back. Pure.

use std::net::IpAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use super::links::Links;
use crate::headers::{TOKEN_PROTOCOL, elements};

/// Headers that concern a single connection (RFC 9110, section 7.6.1), beside those that `Connection` names.
const OF_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Headers by which a client authenticates, and those that only an authenticating proxy may set.
const CREDENTIALS: [&str; 3] = ["authorization", "impersonate-", "x-remote-"];
const CORS: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Returns the host that a client has asked; empty if it gave none.
pub(super) fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn without_connection(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = elements(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    let mut kept = headers.clone();
    for name in named.iter().chain(&OF_CONNECTION) {
        kept.remove(name);
    }
    kept
}

/// Joins the values of a header; `None` without one.
fn joined<'a>(values: impl Iterator<Item = &'a str>, separator: &str) -> Option<HeaderValue> {
    let values: Vec<&str> = values.collect();
    HeaderValue::try_from(values.join(separator)).ok().filter(|value| !value.is_empty())
}

fn replace(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

/// Returns the headers of the request to the backend: those of the client without its credentials.
pub(super) fn to_backend(
    given: &HeaderMap,
    is_upgrade: bool,
    path: &str,
    links: &Links,
    client: Option<IpAddr>,
) -> HeaderMap {
    let mut headers = without_connection(given);
    let secret = |name: &&HeaderName| CREDENTIALS.iter().any(|prefix| name.as_str().starts_with(prefix));
    for name in given.keys().filter(secret).chain([&EXPECT]) {
        headers.remove(name);
    }
    debug_assert!(!headers.contains_key(AUTHORIZATION));
    let protocols = elements(given, &SEC_WEBSOCKET_PROTOCOL).filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL));
    replace(&mut headers, SEC_WEBSOCKET_PROTOCOL, joined(protocols, ", "));
    // HTTP/2 splits cookies (RFC 9113, section 8.2.3).
    let cookies = given.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    replace(&mut headers, COOKIE, joined(cookies, "; "));
    if elements(given, &TE).any(|element| element.eq_ignore_ascii_case("trailers")) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if is_upgrade {
        // An upgrade is passed on without a body.
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        for value in given.get_all(UPGRADE) {
            headers.append(UPGRADE, value.clone());
        }
    }
    let asked = given.get(HOST).cloned();
    replace(&mut headers, HOST, asked.clone().or_else(|| HeaderValue::try_from(links.backend()).ok()));
    let client = client.map(|address| address.to_canonical().to_string());
    let hops = elements(given, &FORWARDED_FOR).chain(client.as_deref());
    replace(&mut headers, FORWARDED_FOR, joined(hops, ", "));
    replace(&mut headers, FORWARDED_URI, HeaderValue::try_from(path).ok());
    replace(&mut headers, FORWARDED_HOST, asked);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers
}

/// Returns the headers of the response to the client. A backend does not decide which pages of other origins may read it
/// through this server.
pub(super) fn to_client(given: &HeaderMap) -> HeaderMap {
    let mut headers = without_connection(given);
    for name in &CORS {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::is_upgrade;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_backend_gets_neither_credentials_nor_headers_of_the_connection() {
        let given = map(&[
            ("host", "api.example:6443"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("x-remote-group", "system:masters"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-own", "kept"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, chat"),
        ]);
        let links = Links::new("/p", "10.0.0.1:80".to_owned(), "");
        let client = Some("::ffff:198.51.100.7".parse().expect("an address"));
        let expected = map(&[
            ("host", "api.example:6443"),
            ("te", "trailers"),
            ("cookie", "a=1; b=2"),
            ("x-forwarded-for", "192.0.2.1, 198.51.100.7"),
            ("x-forwarded-uri", "/p/x"),
            ("x-forwarded-host", "api.example:6443"),
            ("x-forwarded-proto", "https"),
            ("x-own", "kept"),
            ("sec-websocket-protocol", "chat"),
        ]);
        assert_eq!(to_backend(&given, false, "/p/x", &links, client), expected);
        assert_eq!(to_backend(&HeaderMap::new(), false, "/p/x", &links, None)[HOST], "10.0.0.1:80");
    }

    #[test]
    fn an_upgrade_keeps_its_headers() {
        let given = map(&[("connection", "keep-alive"), ("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(is_upgrade(&given) && !is_upgrade(&map(&[("connection", "upgrade")])));
        assert!(!is_upgrade(&map(&[("connection", "close"), ("upgrade", "h2c")])));
        let headers = to_backend(&given, true, "/", &Links::new("", String::new(), ""), None);
        assert_eq!(
            (&headers[CONNECTION], &headers[UPGRADE]),
            (&HeaderValue::from_static("Upgrade"), &HeaderValue::from_static("websocket"))
        );
    }

    #[test]
    fn a_backend_cannot_open_this_server_to_other_origins() {
        let given = map(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        let expected = map(&[("content-length", "3"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        assert_eq!(to_client(&given), expected);
    }
}
