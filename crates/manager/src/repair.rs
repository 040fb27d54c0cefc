//! The periodic repair of Service allocations on the leader, which starts when this master begins to lead.

use std::time::Duration;

use quorate_apiserver::{Api, repair_allocations};
use quorate_controllers::EventType;
use tokio_util::sync::CancellationToken;

use crate::events::{Record, Recorder};

/// Interval of the repair, as in Kubernetes' repair controllers.
const PERIOD: Duration = Duration::from_secs(180);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const COMPONENT: &str = "service-allocation-repair";

/// Repairs until cancelled, and reports its findings as events.
pub(crate) async fn run(api: Api, recorder: Recorder, cancelled: CancellationToken) {
    let repair = async {
        loop {
            let pause = match repair_allocations(&api).await {
                Ok(findings) => {
                    for finding in findings {
                        recorder.record(Record {
                            component: COMPONENT.to_owned(),
                            regarding: finding.regarding,
                            event_type: EventType::Warning,
                            reason: finding.reason.to_owned(),
                            message: finding.message,
                        });
                    }
                    PERIOD
                }
                Err(error) => {
                    tracing::warn!(%error, "allocations could not be compared with Services; retrying");
                    RETRY_AFTER
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    cancelled.run_until_cancelled(repair).await;
}
