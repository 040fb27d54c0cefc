//! The API server over the store in memory, with real TLS and real clients.

mod access;
mod deletion;
mod documents;
mod harness;
mod join;
mod kinds;
mod kubectl;
mod local;
mod logs;
mod nodes;
mod reading;
mod services;
mod watching;
mod writing;
