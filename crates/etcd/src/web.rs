//! The plain HTTP endpoints on etcd's client address: `/version`, `/health` and `/metrics`. Load balancers, monitoring
//! and `etcdctl check datascale` use them.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::maintenance::VERSION;
use crate::shared::Shared;

/// The routes, to be merged with those of the gRPC services.
pub(crate) fn routes(shared: Shared) -> Router {
    let asked = shared.clone();
    Router::new()
        .route("/version", get(async || json(StatusCode::OK, version())))
        .route("/health", get(async move || health(&asked).await))
        .route("/metrics", get(async move || metrics(&shared).await))
}

fn json(code: StatusCode, body: String) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn version() -> String {
    format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{VERSION}\"}}")
}

/// A member is healthy when it can answer a linearizable read.
async fn health(shared: &Shared) -> Response {
    match shared.store.read_barrier().await {
        Ok(_) => json(StatusCode::OK, "{\"health\":\"true\",\"reason\":\"\"}".to_owned()),
        Err(error) => {
            tracing::debug!(%error, "not healthy");
            let reason = "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}";
            json(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
        }
    }
}

/// The few etcd metrics that apply here, under etcd's names. Quorate's own metrics are served elsewhere.
async fn metrics(shared: &Shared) -> Response {
    let memory = match resident_bytes().await {
        Ok(bytes) => bytes,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let leadership = shared.leadership().borrow().clone();
    let leads = leadership.leader.as_ref().is_some_and(|leader| leader.id == shared.member_id());
    let gauges = [
        ("etcd_server_has_leader", "Whether or not a leader exists.", u64::from(leadership.leader.is_some())),
        ("etcd_server_is_leader", "Whether or not this member is a leader.", u64::from(leads)),
        ("etcd_debugging_mvcc_current_revision", "The current revision of store.", shared.store.revision().0),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", memory),
    ];
    let text: String = gauges
        .iter()
        .map(|(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"))
        .collect();
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Resident memory of this process, in bytes, as reported by the kernel.
async fn resident_bytes() -> std::io::Result<u64> {
    let status = tokio::fs::read_to_string("/proc/self/status").await?;
    parse_resident(&status).ok_or_else(|| std::io::Error::other("/proc/self/status has no VmRSS line"))
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_parsed() {
        assert_eq!(parse_resident("Name:\tquorate\nVmRSS:\t   12345 kB\nThreads:\t9\n"), Some(12_345 * 1024));
        assert_eq!(parse_resident("Name:\tquorate\n"), None);
    }
}
