//! Fences: how long a pod may run on a node that has lost contact with the masters. The agent stops a fenced pod in
//! time, and the masters rely on it; both use the rules of this module.

use std::time::Duration;

use jiff::SignedDuration;

/// The annotation with a pod's fence: a duration such as `30s` or `2m`, or [`NONE`]. It cannot change while the pod
/// exists, because the node and the masters must agree on it without contact.
pub const ANNOTATION: &str = "quorate.io/fence-after";
/// The value that exempts a pod from the cluster's default fence.
pub const NONE: &str = "none";
/// The label of nodes whose agent enforces fences.
pub const NODE_LABEL: &str = "quorate.io/fencing";
/// The namespace of the nodes' Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The shortest fence. It leaves time for several heartbeats and a change of the masters' leader.
pub const MIN: Duration = Duration::from_secs(10);
/// The longest fence.
pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Timeout of a lease renewal. The agent counts a renewal as failed if its response takes longer, whatever the response
/// says. The timeout bounds the time from sending a counted renewal to its effect.
pub const RENEWAL_LIMIT: Duration = Duration::from_secs(4);

/// Time that stopping a pod may take beyond its grace period, including clock drift beyond [`DRIFT_PARTS`].
const MARGIN: Duration = Duration::from_secs(10);
/// Divisor of the drift allowance: two monotonic clocks may drift apart by one part in this many.
const DRIFT_PARTS: u32 = 50;

/// Parses the annotation; `None` for [`NONE`].
///
/// # Errors
/// A message about the value, for a field error.
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

/// Returns the silence of a node, as a master measures it, after which a pod with this fence and grace no longer runs
/// there.
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
    fn masters_wait_longer_than_an_agent_needs() {
        let (fence, grace) = (Duration::from_secs(30), Duration::from_secs(20));
        assert!(removable_after(fence, grace) >= fence + grace + RENEWAL_LIMIT + Duration::from_secs(5));
    }
}
