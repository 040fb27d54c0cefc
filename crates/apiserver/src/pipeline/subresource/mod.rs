//! Subresources that are documents of their own: `scale`, `binding`, `eviction`. (`status` and `finalize` are updates
//! of the object with another strategy; `log` is a stream from the node.)

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod scale;
