//! `/healthz`, `/livez`, `/readyz`.

use quorate_store::Store;

use crate::query::Query;
use crate::response::Response;

/// Answers at all.
const PING: &str = "ping";
/// Knows a leader, without which it can neither write nor read the newest state. `etcd` by Kubernetes' name.
const STORE: &str = "etcd";

/// Runs an endpoint's checks, or one of them, in Kubernetes' plain text.
pub(crate) fn answer(store: &Store, endpoint: &str, check: Option<String>, query: &Query) -> Response {
    // A member that waits for a leader is alive: restarting it would not help.
    let checks: &[&str] = if endpoint == "livez" { &[PING] } else { &[PING, STORE] };
    if let Some(check) = check {
        return match checks.iter().find(|name| **name == check) {
            Some(name) if passes(store, name) => Response::text(200, "ok"),
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
        } else if passes(store, name) {
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

fn passes(store: &Store, check: &str) -> bool {
    check != STORE || store.leadership().borrow().leader.is_some()
}
