//! The etcd v3 API in front of the store, so that clients and tools of etcd work unchanged.
//!
//! | module | holds |
//! |---|---|
//! | [`pb`] | messages and services, generated from `proto/` |
//! | `convert`, `errors` | from the wire to the store and back; refusals in etcd's words |
//! | [`guard`] | keeps writes away from the keys of the Kubernetes objects |
//! | `kv`, `watch`, `lease`, `cluster`, `maintenance`, `auth` | etcd's services |
//! | `queue`, `lock`, `election` | etcd's recipes, served |
//! | [`server`] | listens |

mod auth;
mod cluster;
mod convert;
mod election;
mod errors;
pub mod guard;
mod kv;
mod lease;
mod lock;
mod maintenance;
pub mod pb;
mod queue;
pub mod server;
mod shared;
mod watch;

use futures::stream::BoxStream;
use tonic::Status;

pub use guard::Guard;
pub use server::{Access, ServerConfig, serve};

/// What a service streams out.
type Outgoing<T> = BoxStream<'static, Result<T, Status>>;
