//! [`Api`]: the API server without a network.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use futures::{FutureExt, StreamExt};
use quorate_api::{Revision, Status};
use quorate_pki::Authorities;
use quorate_registry::Descriptor;
use quorate_registry::pool::Pools;
use quorate_store::{StateHash, Store};
use serde_json::json;

use crate::catalog::Catalog;
use crate::nodes::NodeClient;
use crate::pipeline::admission::pod_defaults::PodDefaults;
use crate::pipeline::authorize::{NodeRelations, authenticate, authorize};
use crate::pipeline::dispatch;
use crate::pipeline::turns::Turns;
use crate::pipeline::watch::SharedEvents;
use crate::response::{Body, Request, Response};
use crate::route::{Route, route_request};
use crate::version::Build;
use crate::{error, headers, health, join, openapi, quorum, version};

/// The pipeline over a store, for every kind of a table. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    catalog: ArcSwap<Catalog>,
    /// The pools that Services take addresses and node ports from.
    pools: Pools,
    events: SharedEvents,
    /// The objects that the pods of each node refer to.
    relations: NodeRelations,
    nodes: ArcSwapOption<NodeClient>,
    build: OnceLock<Build>,
    pod_defaults: ArcSwap<PodDefaults>,
    /// The turns of writes that are charged to the quotas of a namespace.
    quota_turns: Turns,
    authorities: ArcSwapOption<Authorities>,
}

impl Api {
    /// Serves the kinds that `descriptors` describe from `store`, with the default pools.
    #[must_use]
    pub fn new(store: Store, descriptors: Vec<Descriptor>) -> Self {
        Api::with_pools(store, descriptors, Pools::default())
    }

    /// As [`Api::new`], with the pools that Services take addresses and node ports from.
    #[must_use]
    pub fn with_pools(store: Store, descriptors: Vec<Descriptor>, pools: Pools) -> Self {
        let inner = Inner {
            store,
            catalog: ArcSwap::from_pointee(Catalog::new(descriptors)),
            pools,
            events: SharedEvents::default(),
            relations: NodeRelations::default(),
            nodes: ArcSwapOption::empty(),
            build: OnceLock::new(),
            pod_defaults: ArcSwap::default(),
            quota_turns: Turns::default(),
            authorities: ArcSwapOption::empty(),
        };
        Api { inner: Arc::new(inner) }
    }

    /// Returns the store behind the API.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Replaces the table of kinds, as when a CustomResourceDefinition adds rows to it.
    pub fn set_descriptors(&self, descriptors: Vec<Descriptor>) {
        self.inner.catalog.store(Arc::new(Catalog::new(descriptors)));
    }

    /// Sets the build information that `/version` shows.
    ///
    /// # Errors
    /// Returns `build` when it is already set.
    pub fn set_build(&self, build: Build) -> Result<(), Build> {
        self.inner.build.set(build)
    }

    /// Sets the defaults of new pods. They must be the same on every member of a quorum.
    pub fn set_pod_defaults(&self, defaults: PodDefaults) {
        self.inner.pod_defaults.store(Arc::new(defaults));
    }

    pub(crate) fn pod_defaults(&self) -> PodDefaults {
        **self.inner.pod_defaults.load()
    }

    pub(crate) fn quota_turns(&self) -> &Turns {
        &self.inner.quota_turns
    }

    pub(crate) fn catalog(&self) -> Guard<Arc<Catalog>> {
        self.inner.catalog.load()
    }

    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.inner.pools
    }

    pub(crate) fn relations(&self) -> &NodeRelations {
        &self.inner.relations
    }

    pub(crate) fn events(&self) -> &SharedEvents {
        &self.inner.events
    }

    pub(crate) fn set_node_client(&self, client: NodeClient) {
        self.inner.nodes.store(Some(Arc::new(client)));
    }

    pub(crate) fn node_client(&self) -> Option<Arc<NodeClient>> {
        self.inner.nodes.load_full()
    }

    /// Sets the authorities with which this server signs the certificates of joining machines.
    pub fn set_authorities(&self, authorities: Arc<Authorities>) {
        self.inner.authorities.store(Some(authorities));
    }

    pub(crate) fn authorities(&self) -> Option<Arc<Authorities>> {
        self.inner.authorities.load_full()
    }

    /// Returns the failing checks of `/readyz`, by Kubernetes' names; none when this member is ready to serve.
    pub async fn failing_checks(&self) -> Vec<&'static str> {
        health::failing(self).await
    }

    /// Runs a request through the pipeline. It never panics: a panic of a handler becomes a `500`.
    pub async fn handle(&self, request: Request) -> Response {
        match AssertUnwindSafe(self.run(&request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => Response::failure(&status),
            Err(_) => {
                tracing::error!(method = %request.method, path = request.path, "a request handler panicked");
                Response::failure(&Status::internal("this request caused the server to panic; see its log"))
            }
        }
    }

    async fn run(&self, request: &Request) -> Result<Response, Status> {
        let (query, routed) = route_request(&self.catalog(), &request.method, &request.path, &request.query)?;
        // Anonymous users do not learn which paths exist, so authentication comes before the routing error.
        let user = authenticate(request.connection.user.clone(), &request.path)?;
        let routed = routed?;
        let relation = authorize(self, &user, &routed, &query).await?;
        if let Some(creation) = routed.as_creation(headers::is_upgrade(&request.headers)) {
            authorize(self, &user, &creation, &query).await?;
        }
        match routed {
            Route::Resource(target) => dispatch::dispatch(self, user, relation, target, request, &query).await,
            Route::Discovery(what) => self.catalog().documents.answer(&what, &request.headers),
            Route::OpenApiV2 => openapi::v2(self.inner.catalog.load_full(), &request.headers).await,
            Route::OpenApi(path) => openapi::v3(self.inner.catalog.load_full(), path, &query, &request.headers).await,
            Route::Version => Response::json(&version::version(self.inner.build.get().copied().unwrap_or_default())),
            Route::Health { endpoint, check } => Ok(health::answer(self, endpoint, check, &query).await),
            Route::Quorum => {
                let mut status = self.inner.store.quorum_status().await.map_err(|e| error::from_store(&e))?;
                // The id of an invited member may be its token's secret, so it is hidden.
                status.invited.iter_mut().for_each(|invited| invited.id = 0);
                Response::json(&json!(status))
            }
            Route::QuorumHash => {
                let StateHash { revision, hash, .. } =
                    self.inner.store.hash_at(Revision::ZERO).await.map_err(|e| error::from_store(&e))?;
                Response::json(&json!({ "revision": revision, "hash": format!("{hash:016x}") }))
            }
            Route::QuorumChange(operation) => quorum::change(&self.inner.store, operation, &request.body).await,
            Route::Join(operation) => join::answer(self, &user, operation, request).await,
            Route::QuorumBackup => {
                let backup = self.inner.store.backup().await.map_err(|e| error::from_store(&e))?;
                let chunks = backup.into_chunks();
                let chunks = futures::stream::unfold(chunks, async |mut chunks| Some((chunks.recv().await?, chunks)));
                let chunks = chunks.take_until(request.connection.shutdown.clone().cancelled_owned()).boxed();
                Ok(Response::new(200, "application/octet-stream", Body::Stream(chunks)))
            }
        }
    }
}
