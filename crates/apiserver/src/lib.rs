//! The API server: one pipeline for every kind (`pipeline`), the documents that describe the kinds (`discovery`,
//! `openapi`), the network side (`server`, `tls`), and the client for code in the same process (`local`).

mod api;
mod bootstrap;
mod catalog;
mod connection;
mod decode;
mod discovery;
mod duplicates;
mod encode;
mod error;
mod health;
mod join;
mod local;
mod logs;
mod metadata;
mod openapi;
mod pipeline;
mod query;
mod quorum;
mod repair;
mod representation;
mod response;
mod route;
mod server;
mod strangers;
mod table;
mod tls;
mod user;
mod version;
mod warning;

pub use api::Api;
pub use bootstrap::bootstrap;
pub use connection::Connection;
pub use join::{JOIN_ROWS, Role, TokenRequest, create_token, publish_hosts};
pub use local::LocalClient;
pub use pipeline::allocate::ALLOCATIONS;
pub use pipeline::condition::Condition;
pub use pipeline::pod_defaults::PodDefaults;
pub use repair::{Finding, repair_allocations};
pub use response::{Body, Request, Response};
pub use server::{ServeError, ServerConfig, serve};
pub use tls::{TlsError, certificate_user, client_config, server_config};
pub use user::{MASTERS, NODES, UserInfo};
pub use version::Build;
