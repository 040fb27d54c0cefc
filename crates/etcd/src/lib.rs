//! The etcd v3 API of the store, so that clients and tools of etcd work unchanged.
//!
//! | module | holds |
//! |---|---|
//! | [`pb`] | messages and services, generated from `proto/` |
//! | `convert`, `errors` | conversion between messages and commands; errors with etcd's codes and messages |
//! | `alarms` | problems that members cannot repair by themselves |
//! | [`guard`] | refusal of writes to the keys of Kubernetes objects |
//! | `kv`, `watch`, `lease`, `cluster`, `maintenance`, `auth` | etcd's services |
//! | `pages`, `range_stream` | long ranges: reads in pages, responses in parts |
//! | `web` | plain HTTP endpoints |
//! | `queue`, `lock`, `election` | the lock and election services |
//! | [`server`], `intake`, `answers` | the listener; memory budgets of requests and of responses |
//! | `gather` | batching of a connection's writes |

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

/// A stream of responses.
type Outgoing<T> = BoxStream<'static, Result<T, Status>>;
