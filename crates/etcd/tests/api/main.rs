//! Tests of the services with an etcd client library, on a store in memory.

mod answers;
mod served;
mod services;
