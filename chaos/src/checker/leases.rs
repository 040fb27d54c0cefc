//! Checks that a key with a lease exists while its lease is kept alive, and is deleted when it is not.

use std::collections::HashMap;

use super::Check;
use crate::history::{LeaseEvent, LeaseLog, Micros, WatchLog, WatchRecord};

const SECOND: Micros = 1_000_000;

/// Checks every lease, together with the deletions that watchers saw.
#[must_use]
pub fn check(leases: &[LeaseLog], watches: &[WatchLog]) -> Check {
    let deletions = first_deletions(watches);
    let mut violations = Vec::new();
    for lease in leases {
        violations.extend(check_lease(lease, deletions.get(lease.key.as_str()).copied()));
    }
    let kept = leases.iter().flat_map(|lease| &lease.events).filter(|e| matches!(e, LeaseEvent::Kept { .. })).count();
    let extent = format!("{} leases, {kept} grants and keep-alives", leases.len());
    Check::of("leases expire, and not before their time", extent, violations)
}

/// Time at which a watcher first saw each key deleted. Keys with leases are written once.
fn first_deletions(watches: &[WatchLog]) -> HashMap<&str, Micros> {
    let mut first = HashMap::new();
    for record in watches.iter().flat_map(|watch| &watch.records) {
        let WatchRecord::Batch { at, events } = record else { continue };
        for event in events.iter().filter(|event| event.value.is_none()) {
            let known = first.entry(event.key.as_str()).or_insert(*at);
            *known = (*at).min(*known);
        }
    }
    first
}

fn check_lease(lease: &LeaseLog, deleted: Option<Micros>) -> Vec<String> {
    let events = &lease.events;
    // The time to live of an acknowledged grant or keep-alive starts after its call.
    let kept_until = events.iter().filter_map(|event| match event {
        LeaseEvent::Kept { called, ttl_seconds, .. } => Some(called + ttl_seconds * SECOND),
        _ => None,
    });
    let kept_until = kept_until.max().unwrap_or(0);
    let attached = events.iter().find_map(|event| match event {
        LeaseEvent::Attached { returned, .. } => Some(*returned),
        _ => None,
    });
    let revoking = events.iter().find_map(|event| match event {
        LeaseEvent::Revoked { called, .. } => Some(*called),
        _ => None,
    });
    let revoked = events.iter().find_map(|event| match event {
        LeaseEvent::Revoked { returned, acknowledged: true, .. } => Some(*returned),
        _ => None,
    });
    // The key must exist until the lease expires or the call that revokes it, whichever is earlier.
    let safe_until = revoking.map_or(kept_until, |revoking| revoking.min(kept_until));
    let mut violations = Vec::new();
    let mut complain = |what: String| violations.push(format!("lease {:x} of {}: {what}", lease.id, lease.key));
    for event in events {
        match *event {
            LeaseEvent::Read { called, returned, found: false }
                if attached.is_some_and(|attached| attached < called) && returned < safe_until =>
            {
                complain(format!("the key was missing at {returned} µs, but the lease was kept until {safe_until} µs"));
            }
            LeaseEvent::NotFound { returned, .. } if returned < safe_until => {
                complain(format!("the lease was gone at {returned} µs, but it was kept until {safe_until} µs"));
            }
            LeaseEvent::Read { called, found: true, .. } if revoked.is_some_and(|revoked| revoked < called) => {
                complain(format!("the key existed at {called} µs, after the lease was revoked"));
            }
            LeaseEvent::Kept { called, .. } if revoked.is_some_and(|revoked| revoked < called) => {
                complain(format!("the lease was kept alive at {called} µs, after it was revoked"));
            }
            _ => {}
        }
    }
    if let Some(deleted) = deleted.filter(|deleted| *deleted < safe_until) {
        complain(format!("the key was deleted by {deleted} µs, but the lease was kept until {safe_until} µs"));
    }
    if lease.left_over {
        complain("the key still exists long after its lease expired".to_owned());
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::events::tests::delete;
    use super::*;

    fn lease(events: Vec<LeaseEvent>) -> LeaseLog {
        LeaseLog { id: 7, key: "l".to_owned(), events, left_over: false }
    }

    fn kept(called: Micros) -> LeaseEvent {
        LeaseEvent::Kept { called, returned: called + 10, ttl_seconds: 3 }
    }

    const ATTACHED: LeaseEvent = LeaseEvent::Attached { called: 20, returned: 30 };

    fn read(called: Micros, found: bool) -> LeaseEvent {
        LeaseEvent::Read { called, returned: called + 10, found }
    }

    fn revoked(called: Micros, acknowledged: bool) -> LeaseEvent {
        LeaseEvent::Revoked { called, returned: called + 10, acknowledged }
    }

    fn status(lease: LeaseLog, deleted: Option<Micros>) -> Status {
        let records = deleted.map(|at| WatchRecord::Batch { at, events: vec![delete(9, "l")] }).into_iter().collect();
        check(&[lease], &[WatchLog { records, ..WatchLog::default() }]).status
    }

    #[test]
    fn a_lease_that_expires_on_time_passes() {
        let events = vec![kept(0), ATTACHED, read(40, true), kept(2 * SECOND), read(5 * SECOND, false)];
        assert_eq!(status(lease(events), Some(5 * SECOND)), Status::Passed);
        let early = vec![kept(0), ATTACHED, revoked(100, true), read(200, false)];
        assert_eq!(status(lease(early), Some(150)), Status::Passed);
        let lost = vec![kept(0), ATTACHED, revoked(100, false), read(200, true), kept(300)];
        assert_eq!(status(lease(lost), None), Status::Passed);
        // A read may miss the key before it was written.
        assert_eq!(status(lease(vec![kept(0), read(15, false), ATTACHED]), None), Status::Passed);
    }

    #[test]
    fn planted_violations_are_found() {
        let violated = |events, deleted| assert_eq!(status(lease(events), deleted), Status::Violated);
        violated(vec![kept(0), ATTACHED, read(2 * SECOND, false)], None);
        violated(vec![kept(0), ATTACHED], Some(2 * SECOND));
        violated(vec![kept(0), ATTACHED, kept(2 * SECOND), read(4 * SECOND, false)], None);
        violated(vec![kept(0), ATTACHED, LeaseEvent::NotFound { called: SECOND, returned: SECOND + 1 }], None);
        violated(vec![kept(0), ATTACHED, revoked(100, true), read(200, true)], None);
        violated(vec![kept(0), ATTACHED, revoked(100, true), kept(200)], None);
        violated(vec![kept(0), ATTACHED, revoked(2 * SECOND, true)], Some(SECOND));
        assert_eq!(status(LeaseLog { left_over: true, ..lease(vec![kept(0)]) }, None), Status::Violated);
    }
}
