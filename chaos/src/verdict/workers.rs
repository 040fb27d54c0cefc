//! The checks of a run with workers.

use std::collections::BTreeMap;

use crate::checker::starts::Losses;
use crate::checker::{Check, adoption, deployments, endpoints, starts, statuses, strays};
use crate::nemesis::Account;
use crate::run::Recorded;
use crate::world::Effect;

/// Checks of workers; none when the run had no workers.
pub fn checks(recorded: &Recorded) -> Vec<Check> {
    if recorded.workers == 0 {
        return Vec::new();
    }
    let Recorded { history, account, .. } = recorded;
    let mut checks = vec![check_agents(account)];
    let Some(settled) = &recorded.settled else {
        let extent = "the run had no end at which to check them".to_owned();
        checks.push(Check::undecided("Deployments, containers, statuses and endpoints", extent));
        return checks;
    };
    let lost = account.injected.iter().filter_map(|injected| match injected.effect {
        Effect::MachineLost(worker) => Some((worker, injected.from)),
        _ => None,
    });
    let lost: Vec<adoption::Loss> = lost.collect();
    let mut losses: Losses = BTreeMap::new();
    for (worker, _) in &lost {
        *losses.entry(*worker).or_default() += 1;
    }
    checks.push(deployments::check(&history.requests, settled));
    checks.push(strays::check(settled));
    checks.push(starts::check(&account.starts, &account.killed, &losses, &history.samples, settled));
    checks.push(adoption::check(&account.machines, &account.starts, &account.killed, &lost, settled));
    checks.push(statuses::check(settled));
    checks.push(endpoints::check(&history.samples, &account.changes, settled));
    checks
}

/// Agents end only when they are killed or sent SIGTERM.
fn check_agents(account: &Account) -> Check {
    let unwanted = account.agent_deaths.iter().filter(|death| !death.is_wanted);
    let violations = unwanted.map(|death| {
        format!("w{} at {} µs: {}; last lines of its log:\n{}", death.worker + 1, death.at, death.status, death.said)
    });
    let wanted = account.agent_deaths.iter().filter(|death| death.is_wanted).count();
    let extent = format!("{wanted} expected ends");
    Check::of("agents end only when a fault requires it", extent, violations.collect())
}
