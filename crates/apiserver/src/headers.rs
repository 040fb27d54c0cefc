//! Parsing of request headers that several handlers share.

use http::HeaderMap;
use http::header::{ACCEPT, CONNECTION, HeaderName, UPGRADE};

/// The prefix of a WebSocket protocol that carries a token.
pub(crate) const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Returns the elements of a header that is a list.
pub(crate) fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// Returns the media types that the client accepts, without their parameters.
pub(crate) fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    elements(headers, &ACCEPT).filter_map(|item| item.split(';').next()).map(str::trim)
}

/// Returns whether a request asks for another protocol.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && elements(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Returns whether a request asks for a WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && elements(headers, &UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}
