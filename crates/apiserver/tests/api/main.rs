//! Tests of the API server over the in-memory store, with real TLS and real clients.

mod access;
mod applying;
mod bodies;
mod deletion;
mod documents;
mod harness;
mod hostile;
mod join;
mod kinds;
mod kubectl;
mod kubernetes;
mod kubernetes_objects;
mod local;
mod logs;
mod nodes;
mod policies;
mod quotas;
mod ratcheting;
mod reading;
mod reviews;
mod services;
mod slow;
mod streams;
mod subresources;
mod watching;
mod writing;
