//! The body of an HTML page, whose links are rewritten while it passes.

use std::io::{Error, Write};

use axum::body::Body as HttpBody;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::stream;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;

use super::html::Rewriter;
use super::links::Links;

/// Maximum number of bytes that are decompressed at once. Gzip expands them to at most a thousand times as many.
const PIECE_BYTES: usize = 1024;

/// The encoding of a page that can be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// Returns the encoding of a page; `None` for a response that is no page, or one that has to stay as it is.
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let is_page = media_type.trim().eq_ignore_ascii_case("text/html");
        // The scanner reads encodings that contain ASCII.
        let is_wide = ["utf-16", "utf-32"].iter().any(|wide| parameters.to_ascii_lowercase().contains(wide));
        let is_part = status == StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_RANGE);
        if !is_page || is_wide || is_part {
            return None;
        }
        match headers.get(CONTENT_ENCODING).map_or(Ok("identity"), |coding| coding.to_str()).ok()? {
            "" | "identity" => Some(Coding::Identity),
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            _ => None,
        }
    }

    /// Removes the encoding from the headers, because the rewritten page has none.
    pub fn strip(self, headers: &mut HeaderMap) {
        if self == Coding::Gzip {
            headers.remove(CONTENT_ENCODING);
        }
    }
}

/// Rewrites the links of a page.
pub(super) fn rewritten<B>(body: B, coding: Coding, links: Links) -> HttpBody
where
    B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
{
    let decoder = (coding == Coding::Gzip).then(|| MultiGzDecoder::new(Vec::new()));
    let rewriter = Rewriter::new(move |link: &str| links.rewrite(link));
    let page = Page { body, decoder, rewriter, encoded: Bytes::new(), has_ended: false };
    HttpBody::from_stream(stream::try_unfold(page, |mut page| async move {
        Ok::<_, Error>(page.next().await?.map(|piece| (piece, page)))
    }))
}

struct Page<B, F> {
    body: B,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    rewriter: Rewriter<F>,
    /// Bytes that have arrived and are not decoded yet.
    encoded: Bytes,
    has_ended: bool,
}

impl<B, F> Page<B, F>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
    F: Fn(&str) -> Option<String>,
{
    /// Returns the next piece of the rewritten page, and `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.has_ended {
            let piece = if self.encoded.is_empty() {
                match self.body.frame().await {
                    Some(frame) => {
                        self.encoded = frame?.into_data().unwrap_or_default();
                        Vec::new()
                    }
                    None => {
                        self.has_ended = true;
                        self.end()?
                    }
                }
            } else {
                self.decode()?
            };
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        Ok(None)
    }

    fn decode(&mut self) -> Result<Vec<u8>, Error> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(self.rewriter.write(&std::mem::take(&mut self.encoded)));
        };
        let piece = self.encoded.split_to(self.encoded.len().min(PIECE_BYTES));
        decoder.write_all(&piece)?;
        Ok(self.rewriter.write(&std::mem::take(decoder.get_mut())))
    }

    fn end(&mut self) -> Result<Vec<u8>, Error> {
        let mut rest = Vec::new();
        if let Some(decoder) = &mut self.decoder {
            decoder.try_finish()?;
            rest = self.rewriter.write(&std::mem::take(decoder.get_mut()));
        }
        rest.append(&mut self.rewriter.finish());
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn only_whole_pages_are_rewritten() {
        let coding = |pairs: &[(&'static str, &'static str)]| Coding::of(StatusCode::OK, &headers(pairs));
        assert_eq!(coding(&[("content-type", "Text/HTML; charset=utf-8")]), Some(Coding::Identity));
        assert_eq!(coding(&[("content-type", "text/html"), ("content-encoding", "gzip")]), Some(Coding::Gzip));
        assert_eq!(coding(&[("content-type", "text/html"), ("content-encoding", "br")]), None);
        assert_eq!(coding(&[("content-type", "text/html;charset=UTF-16LE")]), None);
        assert_eq!(coding(&[("content-type", "text/html"), ("content-range", "bytes 0-1/2")]), None);
        assert_eq!(coding(&[("content-type", "application/json")]), None);
        assert_eq!(coding(&[]), None);
    }

    async fn page(bytes: &[u8], coding: Coding) -> Result<Bytes, axum::Error> {
        let frames: Vec<Result<Frame<Bytes>, Error>> =
            bytes.chunks(5).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let links = Links::new("/p", "10.0.0.1:80".to_owned(), "");
        let body = rewritten(StreamBody::new(stream::iter(frames)), coding, links);
        body.collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_compressed_page_is_rewritten_too() {
        let plain = br#"<a href="/x">text</a><a href="#;
        let expected = Bytes::from_static(br#"<a href="/p/x">text</a><a href="#);
        assert_eq!(page(plain, Coding::Identity).await.expect("a page"), expected);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("memory");
        let compressed = encoder.finish().expect("memory");
        assert_eq!(page(&compressed, Coding::Gzip).await.expect("a page"), expected);
        page(&compressed[..compressed.len() - 10], Coding::Gzip).await.expect_err("the page is cut off");
        page(plain, Coding::Gzip).await.expect_err("no gzip");
    }
}
