//! The exit codes of a process that ends by itself; `docs/operations.md` says what to do about each.

/// "Internal software error" of `sysexits.h`: what a Raft instance had open cannot be closed.
pub const EX_SOFTWARE: i32 = 70;
/// "Input/output error" of `sysexits.h`: a sync failed, so nobody knows what is on the disk.
pub const EX_IOERR: i32 = 74;
