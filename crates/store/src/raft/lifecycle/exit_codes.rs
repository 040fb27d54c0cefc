//! Exit codes of a process that ends by itself; `docs/operations.md` says what to do about each.

/// "Internal software error" of `sysexits.h`: the databases of a dead Raft instance cannot be closed.
pub const EX_SOFTWARE: i32 = 70;
/// "Input/output error" of `sysexits.h`: a sync failed, so the contents of the disk are unknown.
pub const EX_IOERR: i32 = 74;
