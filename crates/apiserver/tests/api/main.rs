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
mod reading;
mod watching;
mod writing;
