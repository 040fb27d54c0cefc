//! Runs the verb of an authorized request and turns its result into a response.

use std::sync::Arc;

use quorate_api::{Status, StatusDetails};
use quorate_registry::{Answer, Documents, Handler, Subresource, Verb};
use serde_json::Value;

use crate::api::Api;
use crate::decode::{self, Expected, FieldValidation};
use crate::error;
use crate::list_body;
use crate::logs;
use crate::pipeline::admission::PODS;
use crate::pipeline::authorize::NodeRelation;
use crate::pipeline::delete::{self, DeleteResponse};
use crate::pipeline::list::{ListOptions, Listing};
use crate::pipeline::managed::FieldManager;
use crate::pipeline::patch::{ApplyFormat, Patch, patch};
use crate::pipeline::selection::Selection;
use crate::pipeline::subresource::{binding, eviction, scale};
use crate::pipeline::update::{success, update};
use crate::pipeline::{Effect, Operation, Written, apply, create, delete_collection, read, review, watch};
use crate::proxy;
use crate::query::Query;
use crate::representation::{IncludeObject, negotiate};
use crate::response::{Request, Response, Style};
use crate::route::Target;
use crate::streams;
use crate::user::UserInfo;
use crate::websocket::{Content, over_websocket};

/// Runs the verb of a routed, authenticated and authorized request. `relation` is what the permission rests on.
///
/// # Errors
/// A `Status` from any stage.
pub(crate) async fn dispatch(
    api: &Api,
    user: UserInfo,
    relation: Option<NodeRelation>,
    target: Target,
    request: &Request,
    query: &Query,
) -> Result<Response, Status> {
    match handler(&target) {
        Some(Handler::Log) => {
            let log = logs::logs(api, &target, query, &request.connection.shutdown).await?;
            return over_websocket(request, log, Content::Bytes);
        }
        Some(Handler::Stream) => return streams::open(api, &target, request, query).await,
        Some(Handler::Proxy(backend)) => return proxy::proxy(api, &target, *backend, request).await,
        Some(Handler::Part(_) | Handler::Scale | Handler::Binding | Handler::Eviction) | None => {}
    }
    let include = IncludeObject::parse(query.get("includeObject"))?;
    let negotiated = negotiate(&request.headers, include, target.resource.descriptor.answer.is_none())?;
    let style = Style { negotiated, is_pretty: query.flag("pretty") };
    let is_dry_run = delete::is_dry_run(&query.all("dryRun").collect::<Vec<_>>())?;
    let validation = FieldValidation::parse(query)?;
    let applied = ApplyFormat::of(&request.headers).filter(|_| target.verb == Verb::Patch);
    let write_options = match target.verb {
        Verb::Create => Some("CreateOptions"),
        Verb::Update => Some("UpdateOptions"),
        Verb::Patch => Some("PatchOptions"),
        Verb::Get | Verb::List | Verb::Watch | Verb::Delete | Verb::DeleteCollection | Verb::Unnamed => None,
    };
    let manager = write_options.map(|options| FieldManager::parse(query, &request.headers, options, applied.is_some()));
    let manager = manager.transpose()?.unwrap_or_default();
    let operation = Operation {
        api: api.clone(),
        user,
        manager,
        target,
        is_dry_run,
        validation,
        conditions: Vec::new(),
        warnings: Vec::new(),
    };
    match operation.target.verb {
        Verb::Watch => {
            let connection = request.connection.clone();
            let events = watch::watch(api, &operation.target, relation, query, negotiated, connection).await?;
            over_websocket(request, events, Content::Documents)
        }
        Verb::Get | Verb::List => show(&operation, query, style).await,
        Verb::Delete | Verb::DeleteCollection => remove(operation, request, query, style).await,
        Verb::Create | Verb::Update | Verb::Patch => match applied {
            Some(format) => apply_configuration(operation, format, request, query, style).await,
            None => write(operation, request, style).await,
        },
        // Only proxies, which are served above, take such methods.
        Verb::Unnamed => Err(error::method_not_allowed()),
    }
}

async fn show(operation: &Operation, query: &Query, style: Style) -> Result<Response, Status> {
    let (store, target) = (operation.api.store(), &operation.target);
    match target.verb {
        Verb::List => list_body::respond(listing(operation, query).await?, style).await,
        _ => {
            let kv = read::get(store, target, query.get("resourceVersion")).await?;
            if !matches!(handler(target), Some(Handler::Scale)) {
                return Response::stored(200, &target.version, &kv, style);
            }
            let object: Value = serde_json::from_slice(&kv.value).map_err(Status::internal)?;
            shown(200, &scale::show(&target.resource, &object, kv.mod_revision)?, style)
        }
    }
}

async fn write(mut operation: Operation, request: &Request, style: Style) -> Result<Response, Status> {
    let served = Arc::clone(&operation.target.version);
    let (verb, handler) = (operation.target.verb, handler(&operation.target));
    let expected = match operation.target.subresource.map(|subresource| subresource.row().documents) {
        Some(Documents::Other { api_version, kind }) => Expected::builtin(api_version, kind)?,
        Some(Documents::Own) | None => Expected::served(&served),
    };
    let validation = operation.validation;
    let body = || expected.decode(&request.headers, &request.body);
    // Reads the body of a subresource that is a document of its own.
    let document = |warnings: &mut Vec<String>| -> Result<Value, Status> {
        let body = body()?;
        decode::report_strict_errors(&served, validation, body.strict_errors, warnings)?;
        Ok(body.object)
    };
    if let Some(answer) = served.descriptor.answer {
        let object = document(&mut operation.warnings)?;
        let answered = answered(&operation, answer, object).await?;
        return Ok(shown(201, &answered, style)?.with_warnings(&operation.warnings));
    }
    let patch_strict_errors = || decode::duplicate_fields(&request.body, validation);
    let (code, written) = match (verb, handler) {
        (Verb::Create, Some(Handler::Binding)) => {
            let binding = document(&mut operation.warnings)?;
            binding::bind(&operation, binding).await?;
            return Ok(Response::json(&success(201, None))?.with_code(201).with_warnings(&operation.warnings));
        }
        (Verb::Create, Some(Handler::Eviction)) => {
            let eviction = document(&mut operation.warnings)?;
            let written = eviction::evict(&mut operation, eviction).await?;
            let details = StatusDetails {
                name: operation.target.name().to_owned(),
                kind: served.descriptor.resource.resource.to_string(),
                uid: crate::metadata::text(&written.object, "uid").to_owned(),
                ..StatusDetails::default()
            };
            let response = Response::json(&success(201, Some(details)))?.with_code(201);
            return Ok(response.with_warnings(&operation.warnings));
        }
        (Verb::Create, _) => (201, create::create(&mut operation, body()?).await?),
        (Verb::Update, Some(Handler::Scale)) => {
            let scale = document(&mut operation.warnings)?;
            (200, scale::update(&operation, scale).await?)
        }
        (Verb::Update, _) => {
            let written = update(&mut operation, body()?).await?;
            (if written.effect == Effect::Created { 201 } else { 200 }, written)
        }
        (_, Some(Handler::Scale)) => {
            let changes = Patch::parse(&request.headers, &request.body)?;
            let strict_errors = patch_strict_errors();
            decode::report_strict_patch_errors(&served, validation, &changes, strict_errors, &mut operation.warnings)?;
            (200, scale::patch(&operation, &changes).await?)
        }
        _ => {
            let changes = Patch::parse(&request.headers, &request.body)?;
            (200, patch(&mut operation, &changes, patch_strict_errors()).await?)
        }
    };
    answer(&operation, code, &written, style)
}

/// Returns the answer to the creation of an object that is not stored.
///
/// # Errors
/// A `Status` of the answer.
pub(crate) async fn answered(operation: &Operation, answer: Answer, object: Value) -> Result<Value, Status> {
    match answer {
        Answer::Review(review) => review::answer(operation, review, object).await,
        Answer::Binding => {
            create::check_namespace(operation.target.namespace.as_deref(), &object)?;
            let pods = operation.api.catalog().find(&PODS.group, &PODS.version, &PODS.resource).cloned()?;
            let pod = Target {
                resource: Arc::clone(&pods),
                version: pods,
                name: Some(crate::metadata::text(&object, "name").to_owned()),
                subresource: Some(Subresource::Binding),
                ..operation.target.clone()
            };
            binding::bind(&operation.at(pod), object).await?;
            Ok(success(201, None))
        }
    }
}

/// Answers with the object that a write left, or with its `Scale` when the write went through that.
fn answer(operation: &Operation, code: u16, written: &Written, style: Style) -> Result<Response, Status> {
    let Target { resource, version, .. } = &operation.target;
    let response = match handler(&operation.target) {
        Some(Handler::Scale) => shown(code, &scale::show(resource, &written.object, written.revision)?, style)?,
        _ => Response::written(code, version, written, style)?,
    };
    Ok(response.with_warnings(&operation.warnings))
}

/// Runs a server-side apply.
async fn apply_configuration(
    mut operation: Operation,
    format: ApplyFormat,
    request: &Request,
    query: &Query,
    style: Style,
) -> Result<Response, Status> {
    let written = apply::apply(&mut operation, format, &request.body, query.flag("force")).await?;
    let code = if written.effect == Effect::Created { 201 } else { 200 };
    answer(&operation, code, &written, style)
}

async fn remove(mut operation: Operation, request: &Request, query: &Query, style: Style) -> Result<Response, Status> {
    let options = delete::options(&request.headers, &request.body, query)?;
    operation.is_dry_run |= options.is_dry_run;
    let Target { resource, version, .. } = &operation.target;
    if operation.target.verb == Verb::Delete {
        let written = delete::delete(&operation, &options).await?;
        return match delete::delete_response(resource, written) {
            DeleteResponse::Object(written) => Response::written(200, version, &written, style),
            DeleteResponse::Success(status) => shown(200, &status, style),
        };
    }
    let mut listing = listing(&operation, query).await?;
    let deleted = delete_collection::delete_collection(&operation, &mut listing, &options).await?;
    list_body::whole(&listing, &deleted, style)
}

/// Returns what serves the target's subresource; `None` for the object itself.
fn handler(target: &Target) -> Option<&'static Handler> {
    target.subresource.map(|subresource| &subresource.row().handler)
}

/// Begins the list that a request asks for.
async fn listing(operation: &Operation, query: &Query) -> Result<Listing, Status> {
    let (store, target) = (operation.api.store(), &operation.target);
    let selection = Selection::parse(&target.version, query)?;
    let options = ListOptions::parse(store, &target.resource, query).await?;
    Ok(Listing::new(store, target, selection, options))
}

/// Renders a document that is not a stored object.
fn shown(code: u16, value: &Value, style: Style) -> Result<Response, Status> {
    Response::styled(code, serde_json::to_vec(value).map_err(Status::internal)?, style)
}
