//! The bodies of lists, which are sent while they are read: a client costs one page of memory, whatever the list's size.

use futures::{StreamExt, stream};
use jiff::Timestamp;
use quorate_api::{Status, yaml};
use quorate_mvcc::KeyValue;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::encode;
use crate::pipeline::list::Listing;
use crate::representation::{Encoding, Representation};
use crate::response::{Body, Response, Style, encode_one};
use crate::table;

/// Answers with a list. One that fits in a page is sent as a whole, with its length. So is one in Protocol Buffers or
/// CBOR, whose documents begin with the number of bytes or items that follow.
///
/// # Errors
/// See [`Listing::next`]. A failure after the first page cuts the response off.
pub(crate) async fn respond(mut listing: Listing, style: Style) -> Result<Response, Status> {
    let mut first = listing.next().await?.unwrap_or_default();
    let encoding = style.negotiated.encoding;
    if matches!(encoding, Encoding::Protobuf | Encoding::Cbor) {
        first.extend(listing.collect().await?);
    }
    if listing.is_done() {
        return whole(&listing, &first, style);
    }
    let form = match encoding {
        Encoding::Yaml => Form::Yaml,
        _ if style.is_pretty => Form::Pretty,
        _ => Form::Json,
    };
    let mut writer = Writer::new(style.negotiated.representation, form);
    let mut chunk = Vec::with_capacity(size_hint(&first, style.negotiated.representation));
    writer.head(listing.version(), listing.metadata(), &mut chunk)?;
    writer.items(listing.version(), &first, &mut chunk)?;
    let rest = stream::try_unfold((listing, writer, false), async |(mut listing, mut writer, is_ended)| {
        if is_ended {
            return Ok(None);
        }
        match next_chunk(&mut listing, &mut writer).await {
            Ok((chunk, is_last)) => Ok(Some((chunk.into(), (listing, writer, is_last)))),
            Err(status) => {
                let resource = &listing.version().descriptor.resource;
                tracing::warn!(%resource, error = status.message, "a list was cut off");
                Err(std::io::Error::other(status.message))
            }
        }
    });
    let chunks = stream::once(std::future::ready(Ok(chunk.into()))).chain(rest);
    Ok(Response::new(200, encoding.media_type(), Body::List(chunks.boxed())))
}

/// Renders a list that has been read to its end.
///
/// # Errors
/// When a stored object cannot be decoded.
pub(crate) fn whole(listing: &Listing, items: &[KeyValue], style: Style) -> Result<Response, Status> {
    let served = listing.version();
    let mut writer = Writer::new(style.negotiated.representation, Form::Json);
    let mut out = Vec::with_capacity(size_hint(items, style.negotiated.representation));
    writer.head(served, listing.metadata(), &mut out)?;
    writer.items(served, items, &mut out)?;
    writer.tail(listing.metadata(), &mut out)?;
    Response::styled(200, out, style)
}

/// Returns about the size of a part of the body, where it follows from the stored objects.
fn size_hint(items: &[KeyValue], representation: Representation) -> usize {
    match representation {
        Representation::Object => items.iter().map(|kv| kv.value.len() + 48).sum::<usize>() + 256,
        Representation::Partial | Representation::Table(_) => 0,
    }
}

/// Returns the next part of the body, and whether it is the last.
async fn next_chunk(listing: &mut Listing, writer: &mut Writer) -> Result<(Vec<u8>, bool), Status> {
    let items = listing.next().await?.unwrap_or_default();
    let mut chunk = Vec::with_capacity(size_hint(&items, writer.representation));
    writer.items(listing.version(), &items, &mut chunk)?;
    if listing.is_done() {
        writer.tail(listing.metadata(), &mut chunk)?;
    }
    // A long list may have no match for this selection, so each page yields to other tasks.
    tokio::task::yield_now().await;
    Ok((chunk, listing.is_done()))
}

/// The form of a list that is written in parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    /// JSON whose items are indented. The list around them is not.
    Pretty,
    Yaml,
}

/// Writes the parts of a list's body in order.
struct Writer {
    representation: Representation,
    form: Form,
    now: Timestamp,
    has_metadata: bool,
    has_items: bool,
}

impl Writer {
    fn new(representation: Representation, form: Form) -> Self {
        Writer { representation, form, now: Timestamp::now(), has_metadata: false, has_items: false }
    }

    /// Writes everything before the first item.
    fn head(&mut self, served: &Served, metadata: Option<Value>, out: &mut Vec<u8>) -> Result<(), Status> {
        let (mut head, items) = match self.representation {
            Representation::Table(_) => (table::head(served), "rows"),
            Representation::Object => {
                (json!({ "kind": served.descriptor.list_kind, "apiVersion": served.api_version }), "items")
            }
            Representation::Partial => {
                (json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1" }), "items")
            }
        };
        if let Some(metadata) = metadata {
            head["metadata"] = metadata;
            self.has_metadata = true;
        }
        match self.form {
            Form::Json | Form::Pretty => {
                serde_json::to_writer(&mut *out, &head).map_err(Status::internal)?;
                // The items are the last field of the object.
                out.pop();
                out.extend_from_slice(format!(",\"{items}\":[").as_bytes());
            }
            Form::Yaml => out.extend_from_slice(format!("{}{items}:\n", yaml::to_string(&head)).as_bytes()),
        }
        Ok(())
    }

    fn items(&mut self, served: &Served, items: &[KeyValue], out: &mut Vec<u8>) -> Result<(), Status> {
        for kv in items {
            if self.form != Form::Yaml && self.has_items {
                out.push(b',');
            }
            self.has_items = true;
            if self.form == Form::Json {
                self.item(served, kv, out)?;
                continue;
            }
            let mut json = Vec::with_capacity(kv.value.len() + 48);
            self.item(served, kv, &mut json)?;
            let item: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
            match self.form {
                Form::Yaml => out.extend_from_slice(yaml::to_string(&json!([item])).as_bytes()),
                Form::Json | Form::Pretty => {
                    serde_json::to_writer_pretty(&mut *out, &item).map_err(Status::internal)?;
                }
            }
        }
        Ok(())
    }

    fn item(&self, served: &Served, kv: &KeyValue, out: &mut Vec<u8>) -> Result<(), Status> {
        match self.representation {
            other @ (Representation::Object | Representation::Partial) => {
                encode_one(served, &kv.value, kv.mod_revision, other, out)
            }
            Representation::Table(include) => {
                let object = encode::decoded(&kv.value, kv.mod_revision)?;
                serde_json::to_writer(out, &table::row(served, include, self.now, &object)).map_err(Status::internal)
            }
        }
    }

    /// Writes everything after the last item. The metadata of a list with a limit is known only here.
    fn tail(&mut self, metadata: Option<Value>, out: &mut Vec<u8>) -> Result<(), Status> {
        let metadata = metadata.filter(|_| !self.has_metadata);
        match (self.form, metadata) {
            (Form::Json | Form::Pretty, None) => out.extend_from_slice(b"]}"),
            (Form::Json | Form::Pretty, Some(metadata)) => {
                out.extend_from_slice(b"],\"metadata\":");
                serde_json::to_writer(&mut *out, &metadata).map_err(Status::internal)?;
                out.push(b'}');
            }
            (Form::Yaml, metadata) => {
                if !self.has_items {
                    out.extend_from_slice(b"  []\n");
                }
                let metadata = metadata.map(|metadata| yaml::to_string(&json!({ "metadata": metadata })));
                out.extend_from_slice(metadata.unwrap_or_default().as_bytes());
            }
        }
        Ok(())
    }
}
