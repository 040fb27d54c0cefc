//! One module for each command, with its flags and its execution. Shared code is in other modules.

pub mod api;
pub mod apply;
pub mod backup;
pub mod completion;
pub mod config;
pub mod cordon;
pub mod create;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod drain;
pub mod edit;
pub mod events;
mod generators;
pub mod get;
pub mod label;
pub mod logs;
pub mod patch;
pub mod quorum;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod taint;
pub mod token;
pub mod version;
pub mod wait;
