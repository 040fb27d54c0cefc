//! A rendered document: compressed, with the hash of its content.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, VARY};
use http::{HeaderMap, HeaderValue};
use quorate_api::Status;
use sha2::{Digest, Sha256};

use crate::headers::elements;
use crate::response::{Body, Response, has_etag};

/// A document as most clients ask for it. The plain form is not kept.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// SHA-256 of the plain form, in hexadecimal. Equal documents have equal hashes on all members.
    pub hash: String,
    gzip: Bytes,
}

impl Packed {
    /// # Errors
    /// When the compression fails.
    pub fn new(plain: &[u8]) -> std::io::Result<Self> {
        let hash = Sha256::digest(plain).iter().map(|byte| format!("{byte:02X}")).collect();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain)?;
        let mut gzip = encoder.finish()?;
        gzip.shrink_to_fit();
        Ok(Packed { hash, gzip: gzip.into() })
    }

    /// Returns the bytes that the document occupies.
    #[cfg(test)]
    pub fn size_bytes(&self) -> usize {
        self.gzip.len()
    }

    /// # Errors
    /// When the document cannot be decompressed.
    pub fn plain(&self) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        GzDecoder::new(self.gzip.as_ref()).read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// Returns the document, or `304` to a client that has it. With `expires`, the client may keep it until then.
    ///
    /// # Errors
    /// When the document cannot be decompressed.
    pub fn answer(
        &self,
        media_type: &'static str,
        headers: &HeaderMap,
        expires: Option<HeaderValue>,
    ) -> Result<Response, Status> {
        let etag = format!("\"{}\"", self.hash);
        let mut response = if has_etag(headers, &etag) {
            Response::new(304, media_type, Body::Full(Bytes::new()))
        } else if accepts_gzip(headers) {
            let mut response = Response::new(200, media_type, Body::Full(self.gzip.clone()));
            response.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        } else {
            let plain = self.plain().map_err(Status::internal)?;
            Response::new(200, media_type, Body::Full(plain.into()))
        };
        response.headers.insert(ETAG, HeaderValue::from_str(&etag).map_err(Status::internal)?);
        response.headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if let Some(expires) = expires {
            response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            response.headers.insert(EXPIRES, expires);
        }
        Ok(response)
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    elements(headers, &ACCEPT_ENCODING).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        parts.next() == Some("gzip") && !parts.any(is_refused)
    })
}
