//! Fences: how long a pod may run on a node that the masters do not hear any more. The agent stops a fenced pod in
//! time, and the masters rely on it; both take the rules from here.

use std::time::Duration;

use jiff::SignedDuration;

/// The annotation of a pod that has a fence: a duration as `30s` or `2m`, or [`NONE`]. It cannot change while the pod
/// exists, since its node and the masters must agree on it without talking to each other.
pub const ANNOTATION: &str = "quorate.io/fence-after";
/// The value that keeps a pod out of the cluster's default fence.
pub const NONE: &str = "none";
/// The label of nodes whose agent keeps fences.
pub const NODE_LABEL: &str = "quorate.io/fencing";
/// The namespace of the nodes' Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The shortest fence: several heartbeats, and a change of the masters' leader, fit into it.
pub const MIN: Duration = Duration::from_secs(10);
/// The longest fence.
pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A renewal whose answer takes longer than this counts as failed for the agent, whatever the answer says. It bounds
/// how much later than it was sent a renewal that the agent counts can take effect.
pub const RENEWAL_LIMIT: Duration = Duration::from_secs(4);

/// Time that stopping a pod may take beyond its grace, and that the two clocks may drift apart meanwhile, beside
/// [`DRIFT_PARTS`].
const MARGIN: Duration = Duration::from_secs(10);
/// One part in so many is allowed for the drift of two monotonic clocks.
const DRIFT_PARTS: u32 = 50;

/// Parses the annotation; `None` for [`NONE`].
///
/// # Errors
/// A sentence about the value, for a field error.
pub fn parse(value: &str) -> Result<Option<Duration>, String> {
    if value == NONE {
        return Ok(None);
    }
    let malformed = || format!("must be a duration such as 30s or 2m, or {NONE}");
    let duration: SignedDuration = value.parse().map_err(|_| malformed())?;
    let duration = Duration::try_from(duration).map_err(|_| malformed())?;
    if duration < MIN || duration > MAX {
        return Err(format!("must be between {}s and {}s", MIN.as_secs(), MAX.as_secs()));
    }
    Ok(Some(duration))
}

/// The silence of a node, as a master measures it, after which a pod with this fence and this grace does not run there
/// any more.
#[must_use]
pub fn removable_after(fence: Duration, grace: Duration) -> Duration {
    let takes = fence.saturating_add(grace);
    takes.saturating_add(takes / DRIFT_PARTS).saturating_add(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_a_duration_within_bounds_or_none() {
        assert_eq!(parse("30s"), Ok(Some(Duration::from_secs(30))));
        assert_eq!(parse("1m 30s"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(parse("none"), Ok(None));
        for malformed in ["", "30", "soon", "-30s", "9s", "25h", "None"] {
            assert!(parse(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn masters_wait_longer_than_any_agent_may_take() {
        let (fence, grace) = (Duration::from_secs(30), Duration::from_secs(20));
        assert!(removable_after(fence, grace) >= fence + grace + RENEWAL_LIMIT + Duration::from_secs(5));
    }
}
