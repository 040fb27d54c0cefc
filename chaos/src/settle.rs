//! The end of the workload: all faults are over and no client writes any more, so everything must reach its desired
//! state and keep it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::checker::{deployments, endpoints, statuses, strays};
use crate::clients::rest::{Credentials, Rest};
use crate::clients::{Context, workload};
use crate::cluster::Machine;
use crate::history::{Request, Settled};

const RETRY: Duration = Duration::from_millis(400);
/// Time for which the desired state must hold.
const STAYS: Duration = Duration::from_secs(2);

/// Deviations from the desired state.
#[must_use]
pub fn unsettled(requests: &[Request], settled: &Settled) -> Vec<String> {
    let mut open = deployments::violations(requests, settled);
    open.extend(strays::violations(settled));
    open.extend(statuses::violations(settled));
    open.extend(endpoints::violations(settled));
    open
}

/// Polls until everything has its desired state or `within` has passed. Returns the last observed state.
///
/// # Errors
/// When API or machines cannot be read in that time.
pub async fn settle(
    context: &Context,
    credentials: Credentials,
    machines: &[Machine],
    requests: &[Request],
    within: Duration,
) -> anyhow::Result<Settled> {
    let began = Instant::now();
    let members = context.layout.places.len();
    let mut rest = Rest::new(context.layout.clone(), credentials, 0);
    let mut reached: Option<Settled> = None;
    loop {
        let seen = read_state(&mut rest, machines, began).await;
        let is_late = began.elapsed() > within;
        match seen {
            Ok(settled) if !unsettled(requests, &settled).is_empty() => {
                reached = None;
                if is_late {
                    return Ok(settled);
                }
            }
            Ok(settled) => match &reached {
                Some(before) if before.machines == settled.machines => {
                    return Ok(Settled { took: before.took, ..settled });
                }
                _ => {
                    reached = Some(settled);
                    sleep(STAYS).await;
                }
            },
            Err(error) if is_late => return Err(error),
            Err(_) => rest.move_to((rest.member + 1) % members),
        }
        sleep(RETRY).await;
    }
}

async fn read_state(rest: &mut Rest, machines: &[Machine], began: Instant) -> anyhow::Result<Settled> {
    let api = workload::all(rest).await?;
    let mut seen = Vec::new();
    for machine in machines {
        seen.push(machine.containers().await?);
    }
    Ok(Settled { took: u64::try_from(began.elapsed().as_micros())?, api, machines: seen })
}
