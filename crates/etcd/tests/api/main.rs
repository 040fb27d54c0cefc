//! The services as a client library of etcd's uses them, in front of a store in memory.

mod answers;
mod served;
mod services;
