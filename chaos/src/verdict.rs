//! All checks of a run.

mod workers;

use std::collections::BTreeMap;

use crate::checker::events::EventLog;
use crate::checker::linearizability::Verdict;
use crate::checker::registers::Finding;
use crate::checker::{Check, availability, counters, hashes, informers, leases, registers, revisions, watches};
use crate::clients::leases::LEASED;
use crate::clients::objects::NAME;
use crate::ending::{Ending, Shown};
use crate::fault::Kind;
use crate::history::Micros;
use crate::leader::Led;
use crate::nemesis::{Account, Death, Injected};
use crate::run::Recorded;
use crate::world::{Effect, MemberIndex};

/// Time within which a member must end after its fsync began to fail, if it has something to write.
const END_WITHIN: Micros = 2_000_000;

/// Runs all checks. `bound` is the longest time that a connected majority may go without accepting a write; `panics`
/// are those found in the logs.
#[must_use]
pub fn judge(recorded: &Recorded, members: usize, bound: Micros, panics: Vec<String>) -> Vec<Check> {
    let Recorded { history, account, ending, .. } = recorded;
    let (log, differing) = EventLog::of(&history.watches);
    let is_whole = ending.problem.is_none() && differing.is_empty();
    let mut checks = linearizability(&registers::check(&history.operations, is_whole.then_some(&log)));
    checks.push(availability::check(&account.changes, &history.operations, recorded.healed, bound));
    checks.push(leases::check(&history.leases, &history.watches));
    checks.push(counters::check(&history.increments, ending.counter));
    if let Some(problem) = &ending.problem {
        checks.push(Check::of(
            "the quorum serves again after everything is healed",
            String::new(),
            vec![problem.clone()],
        ));
        checks.push(revisions::check_durability(&history.operations, &log, LEASED));
        let extent = "the run had no end at which to check them".to_owned();
        checks.push(Check::undecided("watches, informers, hashes and equality of members", extent));
    } else {
        checks.push(revisions::check_durability(&history.operations, &log, LEASED));
        checks.push(revisions::check_reads(&history.operations, &log));
        checks.push(revisions::check_real_time(&history.operations, &log));
        checks.push(watches::check(&history.watches, &log, differing, ending.last));
        checks.push(check_informers(recorded));
        checks.push(check_members(ending, &log));
        let rounds: Vec<_> = recorded.hashes.iter().chain(&ending.hashes).cloned().collect();
        checks.push(hashes::check(&rounds, members));
    }
    checks.push(check_leaders(&recorded.leaders));
    checks.push(check_processes(account));
    checks.extend(workers::checks(recorded));
    checks.push(Check::of("no process panicked", format!("{} logs", members + recorded.workers), panics));
    checks
}

/// One check for each type of object.
fn linearizability(findings: &[Finding]) -> Vec<Check> {
    let sort = |finding: &&Finding| match &finding.object {
        object if object.starts_with(NAME) => "ConfigMaps over REST are linearizable",
        object if object.starts_with("chaos/txn/") => "transactions over several keys are linearizable",
        _ => "registers are linearizable",
    };
    let mut sorts: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        sorts.entry(sort(&finding)).or_default().push(finding);
    }
    let check = |(name, findings): (&str, Vec<&Finding>)| {
        let operations: usize = findings.iter().map(|finding| finding.operations.len()).sum();
        let undecided = findings.iter().filter(|f| matches!(f.verdict, Verdict::Undecided { .. })).count();
        let extent = format!("{operations} operations on {} objects", findings.len());
        let violations: Vec<String> = findings.iter().filter_map(|finding| finding.describe()).collect();
        if violations.is_empty() && undecided > 0 {
            return Check::undecided(name, format!("{extent}, {undecided} of them undecided"));
        }
        Check::of(name, extent, violations)
    };
    sorts.into_iter().map(check).collect()
}

fn check_informers(recorded: &Recorded) -> Check {
    let objects = |shown: &[Shown]| {
        shown.iter().map(|(name, value, at)| (name.clone(), (value.clone(), *at))).collect::<BTreeMap<_, _>>()
    };
    let last = recorded.ending.objects.first().map(|(_, shown)| objects(shown)).unwrap_or_default();
    let Recorded { history, ending, .. } = recorded;
    informers::check(&history.informers, &history.operations, &last, ending.last_object)
}

/// At the end every member returns the same keys and objects, and the keys are the result of the watched events.
fn check_members(ending: &Ending, log: &EventLog) -> Check {
    let mut violations = Vec::new();
    for (what, shown) in [("keys", &ending.keys), ("ConfigMaps", &ending.objects)] {
        let differ = shown.windows(2).filter(|pair| pair[0].1 != pair[1].1);
        violations.extend(differ.map(|pair| {
            let only = pair[0].1.iter().find(|one| !pair[1].1.contains(one));
            let other = pair[1].1.iter().find(|one| !pair[0].1.contains(one));
            format!("m{} and m{} return different {what}: {only:?}, {other:?}", pair[0].0 + 1, pair[1].0 + 1)
        }));
    }
    for (member, shown) in &ending.keys {
        let is_explained =
            |(key, value, revision): &&Shown| log.value_at(key, ending.last) == Some((*revision, value.as_str()));
        violations.extend(
            shown
                .iter()
                .filter(|key| !is_explained(key))
                .map(|key| format!("m{} returns {key:?}, which no event explains", member + 1)),
        );
        let living =
            log.iter().filter(|seen| log.value_at(&seen.key, ending.last).is_some_and(|(at, _)| at == seen.revision));
        let missing = living.filter(|seen| !shown.iter().any(|(key, ..)| *key == seen.key));
        violations.extend(missing.map(|seen| format!("m{} does not return {seen:?}", member + 1)));
    }
    let keys = ending.keys.first().map_or(0, |(_, keys)| keys.len());
    let objects = ending.objects.first().map_or(0, |(_, objects)| objects.len());
    Check::of("all members have the same state at the end", format!("{keys} keys, {objects} ConfigMaps"), violations)
}

/// At most one member leads in a term.
fn check_leaders(leaders: &[Led]) -> Check {
    let mut terms: BTreeMap<u64, usize> = BTreeMap::new();
    let mut violations = Vec::new();
    for led in leaders {
        let known = *terms.entry(led.term).or_insert(led.member);
        if known != led.member {
            violations.push(format!("m{} and m{} both led in term {}", known + 1, led.member + 1, led.term));
        }
    }
    Check::of("at most one member leads in a term", format!("{} terms seen", terms.len()), violations)
}

/// Members end only when they are killed or sent SIGTERM, when their fsync fails, or when their log has a different
/// version.
fn check_processes(account: &Account) -> Check {
    let mut violations: Vec<String> = account
        .deaths
        .iter()
        .filter(|death| !death.is_wanted && !is_excused(account, death))
        .map(|death| {
            format!(
                "m{} at {} µs: {}; last lines of its log:\n{}",
                death.member + 1,
                death.at,
                death.status,
                death.said
            )
        })
        .collect();
    let failed = account.injected.iter().filter(|injected| injected.kind == Kind::FailedSync);
    for injected in failed {
        let Effect::FailingSync(member) = injected.effect else { continue };
        let has_ended = |death: &&Death| death.member == member && (injected.from..=injected.to).contains(&death.at);
        // A member that is also dead or cut off has nothing to write.
        let is_alone = !account
            .injected
            .iter()
            .any(|other| !std::ptr::eq(other, injected) && other.from < injected.to && injected.from < other.to);
        let has_ended = account.deaths.iter().any(|death| has_ended(&death));
        if !has_ended && is_alone && injected.to - injected.from > END_WITHIN {
            violations.push(format!(
                "m{} ran on from {} µs to {} µs while its fsync failed",
                member + 1,
                injected.from,
                injected.to
            ));
        }
    }
    let kills = account.injected.iter().filter(|injected| [Kind::Kill, Kind::PowerLoss].contains(&injected.kind));
    let wanted = account.deaths.iter().filter(|death| death.is_wanted).count();
    let extent = format!("{} faults that kill, {wanted} expected ends", kills.count());
    Check::of("members end only when a fault requires it", extent, violations)
}

/// An error that excuses the end of a member, the fault that causes it, and the time after the fault for which it is an
/// excuse.
type Excuse = (&'static str, fn(MemberIndex) -> Effect, Micros);

const EXCUSES: [Excuse; 2] = [
    // A member that is started on a full disk cannot open its state and is started again; a start may begin before
    // space is freed.
    ("No space left on device", Effect::FullDisk, 10_000_000),
    // The member's upkeep notices a failed background sync a little later, and the harness notices the end of the
    // process later still.
    ("Input/output error", Effect::FailingSync, 3_000_000),
];

fn is_excused(account: &Account, death: &Death) -> bool {
    EXCUSES.iter().any(|(reason, effect, slack)| {
        let lasts = |injected: &Injected| (injected.from..=injected.to + slack).contains(&death.at);
        let effect = effect(death.member);
        death.said.contains(reason) && account.injected.iter().any(|i| i.effect == effect && lasts(i))
    })
}

#[cfg(test)]
mod tests;
