//! The etcd v3 API in front of the store, so that clients and tools of etcd work unchanged.
//!
//! | module | holds |
//! |---|---|
//! | [`pb`] | messages and services, generated from `proto/` |
//! | `convert`, `errors` | from the wire to the store and back; refusals in etcd's words |
//! | `alarms` | what members cannot mend by themselves |
//! | [`guard`] | keeps writes away from the keys of the Kubernetes objects |
//! | `kv`, `watch`, `lease`, `cluster`, `maintenance`, `auth` | etcd's services |
//! | `pages`, `range_stream` | long ranges: read a page at a time; answered in parts |
//! | `web` | what etcd answers to plain HTTP |
//! | `queue`, `lock`, `election` | etcd's recipes, served |
//! | [`server`], `intake`, `answers` | listens, and bounds what may come in at once and what may wait to be read |
//! | `gather` | writes of a connection that go together |

mod alarms;
mod answers;
mod auth;
mod cluster;
mod convert;
mod election;
mod errors;
mod gather;
pub mod guard;
mod intake;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod pages;
pub mod pb;
mod queue;
mod range_stream;
pub mod server;
mod shared;
mod watch;
mod web;

use futures::stream::BoxStream;
use tonic::Status;

pub use guard::Guard;
pub use server::{Access, ServerConfig, serve};

/// What a service streams out.
type Outgoing<T> = BoxStream<'static, Result<T, Status>>;
