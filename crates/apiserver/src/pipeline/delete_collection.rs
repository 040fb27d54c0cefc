//! The `deletecollection` verb: deletes each selected object.

use futures::{StreamExt, TryStreamExt, stream};
use quorate_api::{ObjectKey, Reason, Status};
use quorate_mvcc::KeyValue;

use crate::pipeline::Operation;
use crate::pipeline::delete::{DeleteOptions, delete};
use crate::pipeline::list::Listing;
use crate::route::Target;

/// Number of deletions that run at the same time.
const CONCURRENCY: usize = 16;

/// Deletes the objects of a list and returns them as they were before. An object that another client deletes meanwhile
/// counts as deleted.
///
/// # Errors
/// The first deletion that fails ends the operation.
pub(crate) async fn delete_collection(
    operation: &Operation,
    listing: &mut Listing,
    options: &DeleteOptions,
) -> Result<Vec<KeyValue>, Status> {
    let items = listing.collect().await?;
    let deletions: Vec<_> = items.iter().map(|kv| delete_one(operation, kv, options)).collect();
    stream::iter(deletions).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
    Ok(items)
}

async fn delete_one(operation: &Operation, kv: &KeyValue, options: &DeleteOptions) -> Result<(), Status> {
    let key = std::str::from_utf8(&kv.key)
        .ok()
        .and_then(ObjectKey::parse)
        .ok_or_else(|| Status::internal("a stored key cannot be parsed"))?;
    let one = operation.at(Target { namespace: key.namespace, name: Some(key.name), ..operation.target.clone() });
    match delete(&one, options).await {
        Err(status) if status.reason != Reason::NotFound => Err(status),
        _ => Ok(()),
    }
}
