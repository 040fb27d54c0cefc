//! The table of subresources. A row has the name, the verbs, the documents and the handler. So routes, discovery and
//! OpenAPI need no branch for a subresource, and the pipeline needs one for each handler.

use quorate_api::FieldError;
use serde_json::Value;

use crate::descriptor::{Descriptor, Verb};
use crate::kinds::{namespace, pod};
use crate::rows::certificates;

/// The subresources that the pipeline can serve. A kind lists those that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// The decision about a certificate signing request.
    Approval,
    Attach,
    Binding,
    EphemeralContainers,
    Eviction,
    Exec,
    /// A namespace's finalizers.
    Finalize,
    Log,
    /// HTTP requests that are passed on to the API of a node.
    NodeProxy,
    /// HTTP requests that are passed on to a port of a pod.
    PodProxy,
    PortForward,
    Resize,
    Scale,
    /// HTTP requests that are passed on to a ready pod of a service.
    ServiceProxy,
    Status,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// In discovery's order.
    pub verbs: &'static [Verb],
    pub documents: Documents,
    pub handler: Handler,
}

/// The kind of a subresource's requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documents {
    /// The kind that has the subresource.
    Own,
    Other {
        api_version: &'static str,
        kind: &'static str,
    },
}

/// The part of the API server that serves a subresource.
#[derive(Debug)]
pub enum Handler {
    /// Reads and updates of the object, where an update changes one part of it.
    Part(Change),
    /// `autoscaling/v1 Scale` through [`Strategy::scale`](crate::Strategy::scale).
    Scale,
    Binding,
    Eviction,
    /// A container's log, proxied to the node.
    Log,
    /// A connection to the node that the client's connection is upgraded to.
    Stream,
    /// HTTP requests of any method, which are passed on to a backend.
    Proxy(Backend),
}

/// The server behind a proxy subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The API of the node.
    Node,
    /// A port of the pod.
    Pod,
    /// A port of one of the service's ready pods.
    Service,
}

/// The steps of an update through a subresource. They replace those of an update of the object.
#[derive(Debug)]
pub struct Change {
    /// Carries over from the old object everything that the subresource does not change.
    pub prepare: fn(&Descriptor, new: &mut Value, old: &Value),
    /// Checks everything except the generic metadata.
    pub validate: fn(&Descriptor, new: &Value, old: &Value) -> Vec<FieldError>,
}

const CREATE: &[Verb] = &[Verb::Create];
const GET: &[Verb] = &[Verb::Get];
const STREAM: &[Verb] = &[Verb::Create, Verb::Get];
const UPDATE: &[Verb] = &[Verb::Update];
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

static ATTACH: Row = stream("attach", core("PodAttachOptions"));
static EXEC: Row = stream("exec", core("PodExecOptions"));
static PORT_FORWARD: Row = stream("portforward", core("PodPortForwardOptions"));
static NODE_PROXY: Row = proxy(core("NodeProxyOptions"), Backend::Node);
static POD_PROXY: Row = proxy(core("PodProxyOptions"), Backend::Pod);
static SERVICE_PROXY: Row = proxy(core("ServiceProxyOptions"), Backend::Service);
static BINDING: Row = Row { name: "binding", verbs: CREATE, documents: core("Binding"), handler: Handler::Binding };
static EVICTION: Row = Row {
    name: "eviction",
    verbs: CREATE,
    documents: Documents::Other { api_version: "policy/v1", kind: "Eviction" },
    handler: Handler::Eviction,
};
static LOG: Row = Row { name: "log", verbs: GET, documents: Documents::Own, handler: Handler::Log };
static SCALE: Row = Row {
    name: "scale",
    verbs: READ_WRITE,
    documents: Documents::Other { api_version: "autoscaling/v1", kind: "Scale" },
    handler: Handler::Scale,
};
static STATUS: Row = part(
    "status",
    READ_WRITE,
    Change {
        prepare: |kind, new, old| kind.strategy.prepare_status_update(new, old),
        validate: |kind, new, old| kind.strategy.validate_status_update(new, old),
    },
);
static FINALIZE: Row = part(
    "finalize",
    UPDATE,
    Change { prepare: |_, new, old| namespace::keep_only_finalizers(new, old), validate: |_, _, _| Vec::new() },
);
static APPROVAL: Row = part(
    "approval",
    READ_WRITE,
    Change {
        prepare: |_, new, old| certificates::keep_only_approval(new, old),
        validate: |kind, new, old| [whole(kind, new, old), certificates::validate_approval(new, old)].concat(),
    },
);
static EPHEMERAL_CONTAINERS: Row = part(
    "ephemeralcontainers",
    READ_WRITE,
    Change {
        prepare: |kind, new, old| {
            pod::ephemeral::keep_only_ephemeral_containers(new, old);
            kind.strategy.prepare_update(new, old);
        },
        validate: |kind, new, old| [whole(kind, new, old), pod::ephemeral::validate_update(new, old)].concat(),
    },
);

static RESIZE: Row = part(
    "resize",
    READ_WRITE,
    Change {
        prepare: |kind, new, old| {
            pod::resize::keep_only_resources(new, old);
            kind.strategy.prepare_update(new, old);
        },
        validate: |kind, new, old| [whole(kind, new, old), pod::resize::validate_update(new, old)].concat(),
    },
);

/// Checks the whole object, as for an update of it, except for what an update may not change.
fn whole(kind: &Descriptor, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = kind.strategy.validate(new);
    kind.schema.check(new, Some(old), &mut errors);
    errors
}

const fn core(kind: &'static str) -> Documents {
    Documents::Other { api_version: "v1", kind }
}

const fn stream(name: &'static str, documents: Documents) -> Row {
    Row { name, verbs: STREAM, documents, handler: Handler::Stream }
}

const fn proxy(documents: Documents, backend: Backend) -> Row {
    Row { name: "proxy", verbs: PROXY, documents, handler: Handler::Proxy(backend) }
}

const fn part(name: &'static str, verbs: &'static [Verb], change: Change) -> Row {
    Row { name, verbs, documents: Documents::Own, handler: Handler::Part(change) }
}

impl Subresource {
    #[must_use]
    pub fn row(self) -> &'static Row {
        match self {
            Subresource::Approval => &APPROVAL,
            Subresource::Attach => &ATTACH,
            Subresource::Binding => &BINDING,
            Subresource::EphemeralContainers => &EPHEMERAL_CONTAINERS,
            Subresource::Eviction => &EVICTION,
            Subresource::Exec => &EXEC,
            Subresource::Finalize => &FINALIZE,
            Subresource::Log => &LOG,
            Subresource::NodeProxy => &NODE_PROXY,
            Subresource::PodProxy => &POD_PROXY,
            Subresource::PortForward => &PORT_FORWARD,
            Subresource::Resize => &RESIZE,
            Subresource::Scale => &SCALE,
            Subresource::ServiceProxy => &SERVICE_PROXY,
            Subresource::Status => &STATUS,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// Returns whether the response is a stream, which has no end of its own.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self.row().handler, Handler::Log | Handler::Stream | Handler::Proxy(_))
    }

    /// Returns the server that requests for this subresource are passed on to.
    #[must_use]
    pub fn backend(self) -> Option<Backend> {
        match self.row().handler {
            Handler::Proxy(backend) => Some(backend),
            _ => None,
        }
    }

    /// Returns whether a request for it upgrades its connection.
    #[must_use]
    pub fn is_upgrade(self) -> bool {
        matches!(self.row().handler, Handler::Stream)
    }

    /// Returns the steps of an update of the part of the object that this subresource changes.
    #[must_use]
    pub fn change(self) -> Option<&'static Change> {
        match &self.row().handler {
            Handler::Part(change) => Some(change),
            _ => None,
        }
    }
}
