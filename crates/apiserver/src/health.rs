//! `/healthz`, `/livez`, `/readyz`.

use quorate_store::Consistency;

use crate::api::Api;
use crate::pipeline::admission::{NAMESPACES, SYSTEM_NAMESPACES};
use crate::pipeline::read;
use crate::query::Query;
use crate::response::Response;

/// This server answers at all.
const PING: &str = "ping";
/// The store knows a leader, without which it can neither write nor read the newest state. Kubernetes calls this check
/// `etcd`.
const STORE: &str = "etcd";
/// The system namespaces exist. Kubernetes names this check after the controller that creates them.
const NAMESPACES_CHECK: &str = "poststarthook/start-system-namespaces-controller";

/// The checks of `/readyz`.
const READINESS: [&str; 3] = [PING, STORE, NAMESPACES_CHECK];

/// Returns the checks of `/readyz` that fail now.
pub(crate) async fn failing(api: &Api) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for check in READINESS {
        if !passes(api, check).await {
            failing.push(check);
        }
    }
    failing
}

/// Runs an endpoint's checks, or one of them, and answers in Kubernetes' plain text.
pub(crate) async fn answer(api: &Api, endpoint: &str, check: Option<String>, query: &Query) -> Response {
    // A member that waits for a leader is alive, and restarting it would not help.
    let checks: &[&str] = if endpoint == "livez" { &[PING] } else { &READINESS };
    if let Some(check) = check {
        return match checks.iter().find(|name| **name == check) {
            Some(name) if passes(api, name).await => Response::text(200, "ok"),
            Some(_) => Response::text(500, format!("internal server error: {check} check failed\n")),
            None => Response::text(404, "404 page not found\n"),
        };
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut is_well = true;
    for name in checks {
        if excluded.contains(name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if passes(api, name).await {
            text.push_str(&format!("[+]{name} ok\n"));
        } else {
            is_well = false;
            text.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    match (is_well, query.flag("verbose")) {
        (true, false) => Response::text(200, "ok"),
        (true, true) => Response::text(200, format!("{text}{endpoint} check passed\n")),
        (false, _) => Response::text(500, format!("{text}{endpoint} check failed\n")),
    }
}

async fn passes(api: &Api, check: &str) -> bool {
    match check {
        STORE => api.store().leadership().borrow().leader.is_some(),
        NAMESPACES_CHECK => has_system_namespaces(api).await,
        _ => true,
    }
}

/// Returns whether this member has the system namespaces. The first leader creates them only after it has begun to
/// lead.
async fn has_system_namespaces(api: &Api) -> bool {
    let catalog = api.catalog();
    let Ok(served) = catalog.find("", "v1", &NAMESPACES.resource) else { return true };
    for name in SYSTEM_NAMESPACES {
        let found = read::key(api.store(), &served.key(None, name), Consistency::Local).await;
        if !matches!(found, Ok(Some(_))) {
            return false;
        }
    }
    true
}
