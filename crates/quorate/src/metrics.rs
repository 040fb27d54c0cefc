//! The plain-HTTP endpoint of a master for monitoring: `/metrics` in OpenMetrics, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use quorate_apiserver::Api;
use quorate_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, store: Store, api: Api, shutdown: CancellationToken) -> std::io::Result<()> {
    let mut registry = Registry::with_prefix("quorate");
    registry.register_collector(Box::new(StoreCollector(store)));
    let state = Arc::new(Endpoint { registry, api });
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(state);
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

struct Endpoint {
    registry: Registry,
    api: Api,
}

async fn metrics(State(endpoint): State<Arc<Endpoint>>) -> impl IntoResponse {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, &endpoint.registry) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Reports the same checks as the API's `/readyz`.
async fn ready(State(endpoint): State<Arc<Endpoint>>) -> impl IntoResponse {
    let failing = endpoint.api.failing_checks().await;
    if failing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("failing: {}\n", failing.join(", ")))
}

/// Collector that reads the gauges from the store on each scrape.
struct StoreCollector(Store);

impl std::fmt::Debug for StoreCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreCollector")
    }
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let leadership = self.0.leadership().borrow().clone();
        let gauges = [
            ("store_revision", "Newest applied revision", self.0.revision().0),
            ("command_version", "Version of commands that the quorum has agreed on", self.0.command_version().0.into()),
            ("raft_term", "Current Raft term", leadership.term),
            ("raft_has_leader", "Whether this member knows a leader", u64::from(leadership.leader.is_some())),
            ("raft_is_leader", "Whether this member leads", u64::from(leadership.is_active_leader)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
