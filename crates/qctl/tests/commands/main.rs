//! Commands against a server that answers from a table: the requests that they send, and what they print.

mod auth;
mod changes;
mod cp;
mod create;
mod debug;
mod exec;
mod port_forward;
mod proxy;
mod run;
mod server;
