//! Black-box tests of a cluster: real processes, unmodified clients, containers on a Docker engine, and power cuts.

mod agent_restart;
mod backup;
mod clients;
mod debug;
mod demo_path;
mod etcd;
mod etcd_limits;
mod fencing;
mod follower_catches_up;
mod kubectl;
mod leader_death;
mod machines;
mod membership;
mod node_access;
mod openapi;
mod parity;
mod power_loss;
mod qctl;
mod qctl_commands;
mod qctl_streams;
mod server_side_apply;
mod streams;
mod up;
mod upgrade;
mod worker_death;
mod writers;
