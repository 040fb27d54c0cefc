//! The paths of a resource with their operations, in the form of OpenAPI v3.

use std::collections::{BTreeMap, BTreeSet};

use quorate_schema::model::Model;
use quorate_schema::openapi::component_name;
use quorate_schema::{TypeId, builtin};
use serde_json::{Map, Value, json};

use super::names;
use super::parameters::{Parameters, WATCH_ONLY};
use super::resource::{KindName, Resource, Subresource};
use crate::pipeline::patch;
use crate::representation::{MEDIA_TYPES, STREAM_MEDIA_TYPES};

/// Prefix of a reference to a component.
pub(super) const COMPONENTS: &str = "#/components/schemas/";
const NAMESPACE: &str = "object name and auth scope, such as for teams and projects";
const DEPRECATED: &str = "deprecated: use the 'watch' parameter with a list operation instead";

/// Renders operations and collects the types that they refer to.
pub(super) struct Operations {
    pub model: &'static Model,
    pub used: BTreeSet<TypeId>,
    /// Kinds that the schema does not know, by the names of their components.
    pub unknown: BTreeMap<String, KindName>,
}

/// An operation before its parameters are shared with the others of its path.
struct Operation {
    method: &'static str,
    parameters: Parameters,
    body: Value,
}

impl Default for Operations {
    fn default() -> Self {
        Operations { model: builtin(), used: BTreeSet::new(), unknown: BTreeMap::new() }
    }
}

/// A place of a resource in the URL space.
struct Place<'a> {
    resource: &'a Resource,
    /// The path up to the collection.
    path: String,
    /// The namespace is part of the path.
    is_namespaced: bool,
}

impl Place<'_> {
    fn parameters(&self, name_of: Option<&str>) -> Parameters {
        let mut parameters = Parameters::default();
        if let Some(kind) = name_of {
            parameters = parameters.path("name", &format!("name of the {kind}"));
        }
        if self.is_namespaced { parameters.path("namespace", NAMESPACE) } else { parameters }
    }

    /// Returns an operation's id: its verb, the group version, and the kind with `after` behind it.
    fn id(&self, verb: &str, before: &str, after: &str) -> String {
        let kind = &self.resource.kind;
        let group_version = names::group_version(&kind.group, &kind.version);
        let scope = if self.is_namespaced { "Namespaced" } else { "" };
        format!("{verb}{group_version}{before}{scope}{}{after}", kind.kind)
    }
}

/// Returns the path of a group version, such as `/apis/apps/v1`.
pub(super) fn root(api_version: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    format!("/{root}/{api_version}")
}

impl Operations {
    /// Renders all paths of a resource.
    pub fn resource(&mut self, resource: &Resource) -> Vec<(String, Value)> {
        let root = root(&resource.api_version());
        let place = |watch: &str, is_namespaced: bool| {
            let scope = if is_namespaced { "namespaces/{namespace}/" } else { "" };
            Place { resource, path: format!("{root}/{watch}{scope}{}", resource.name), is_namespaced }
        };
        let own = place("", resource.is_namespaced);
        let mut paths = vec![self.collection(&own), self.item(&own)];
        for subresource in &resource.subresources {
            paths.push(self.subresource(&own, subresource, ""));
            // A request that is passed on may have a path of its own.
            if self.is_connection(&subresource.kind) && subresource.has("delete") {
                paths.push(self.subresource(&own, subresource, "/{path}"));
            }
        }
        if resource.is_namespaced && resource.has("list") {
            paths.push(self.everywhere(&place("", false)));
        }
        if resource.has("watch") {
            paths.push(self.watch_list(&place("watch/", resource.is_namespaced)));
            paths.push(self.watch_item(&place("watch/", resource.is_namespaced)));
            if resource.is_namespaced {
                paths.push(self.watch_list(&place("watch/", false)));
            }
        }
        paths.retain(|(_, item)| item.as_object().is_some_and(|item| !item.is_empty()));
        paths
    }

    fn collection(&mut self, place: &Place<'_>) -> (String, Value) {
        let resource = place.resource;
        let kind = &resource.kind;
        let parameters = || place.parameters(None).pretty();
        let mut operations = Vec::new();
        if resource.has("list") {
            operations.push(self.list(place, place.id("list", "", ""), parameters()));
        }
        if resource.has("create") {
            let options = parameters().options(self.model, "meta.v1.CreateOptions", &[]);
            let description = format!("create {}", names::with_article(&kind.kind));
            operations.push(self.create(place.id("create", "", ""), description, kind, options, resource));
        }
        if resource.has("deletecollection") {
            let description = format!("delete collection of {}", kind.kind);
            let mut body = self.operation(place.id("delete", "Collection", ""), description, resource);
            body["requestBody"] = self.delete_options(resource);
            body["responses"] = responses(&[(200, self.named("meta.v1.Status"))], MEDIA_TYPES);
            let parameters = parameters().options(self.model, "meta.v1.DeleteOptions", &[]).options(
                self.model,
                "meta.v1.ListOptions",
                &WATCH_ONLY,
            );
            operations.push(acting("delete", "deletecollection", kind, parameters, body));
        }
        (place.path.clone(), path_item(operations))
    }

    fn list(&mut self, place: &Place<'_>, id: String, parameters: Parameters) -> Operation {
        let resource = place.resource;
        let kind = &resource.kind;
        let verb = if resource.has("watch") { "list or watch" } else { "list" };
        let mut body = self.operation(id, format!("{verb} objects of kind {}", kind.kind), resource);
        let list = KindName { kind: resource.list_kind.clone(), ..kind.clone() };
        body["responses"] = responses(&[(200, self.reference(&list))], &streamed());
        let parameters = parameters.options(self.model, "meta.v1.ListOptions", &[]);
        acting("get", "list", kind, parameters, body)
    }

    fn everywhere(&mut self, place: &Place<'_>) -> (String, Value) {
        let id = place.id("list", "", "ForAllNamespaces");
        let operation = self.list(place, id, Parameters::default().pretty());
        (place.path.clone(), path_item(vec![operation]))
    }

    fn create(
        &mut self,
        id: String,
        description: String,
        kind: &KindName,
        parameters: Parameters,
        resource: &Resource,
    ) -> Operation {
        let mut body = self.operation(id, description, resource);
        let object = self.reference(kind);
        body["requestBody"] = request(&["*/*"], &object);
        body["responses"] = responses(&[(200, object.clone()), (201, object.clone()), (202, object)], MEDIA_TYPES);
        acting("post", "post", kind, parameters, body)
    }

    fn item(&mut self, place: &Place<'_>) -> (String, Value) {
        let resource = place.resource;
        let kind = &resource.kind;
        let parameters = || place.parameters(Some(&kind.kind)).pretty();
        let mut operations = Vec::new();
        for verb in ["get", "update", "patch"].into_iter().filter(|verb| resource.has(verb)) {
            operations.push(self.object(place, verb, kind, "", "", parameters()));
        }
        if resource.has("delete") {
            let description = format!("delete {}", names::with_article(&kind.kind));
            let mut body = self.operation(place.id("delete", "", ""), description, resource);
            body["requestBody"] = self.delete_options(resource);
            let left = if resource.returns_deleted { self.reference(kind) } else { self.named("meta.v1.Status") };
            body["responses"] = responses(&[(200, left.clone()), (202, left)], MEDIA_TYPES);
            let parameters = parameters().options(self.model, "meta.v1.DeleteOptions", &[]);
            operations.push(acting("delete", "delete", kind, parameters, body));
        }
        (format!("{}/{{name}}", place.path), path_item(operations))
    }

    /// Renders the read, the replacement or the patch of an object, or of a part of it.
    fn object(
        &mut self,
        place: &Place<'_>,
        verb: &str,
        kind: &KindName,
        part: &str,
        after: &str,
        parameters: Parameters,
    ) -> Operation {
        let (method, action, word, sentence, options) = match verb {
            "get" => ("get", "get", "read", "read", None),
            "update" => ("put", "put", "replace", "replace", Some("meta.v1.UpdateOptions")),
            _ => ("patch", "patch", "patch", "partially update", Some("meta.v1.PatchOptions")),
        };
        let resource = place.resource;
        let description = format!("{sentence} {part}the specified {}", resource.kind.kind);
        let mut body = self.operation(place.id(word, "", after), description, resource);
        let object = self.reference(kind);
        match verb {
            "get" => {}
            "update" => body["requestBody"] = request(&["*/*"], &object),
            _ => body["requestBody"] = request(patch::MEDIA_TYPES, &self.named("meta.v1.Patch")),
        }
        let codes: &[u16] = if verb == "get" { &[200] } else { &[200, 201] };
        let answers: Vec<_> = codes.iter().map(|code| (*code, object.clone())).collect();
        body["responses"] = responses(&answers, MEDIA_TYPES);
        let parameters = match options {
            Some(options) => parameters.options(self.model, options, &[]),
            None => parameters,
        };
        acting(method, action, kind, parameters, body)
    }

    fn subresource(&mut self, place: &Place<'_>, subresource: &Subresource, rest: &str) -> (String, Value) {
        let resource = place.resource;
        let kind = &subresource.kind;
        let path = format!("{}/{{name}}/{}{rest}", place.path, subresource.name);
        let after = names::capitalized(&subresource.name);
        let parameters = || place.parameters(Some(&kind.kind));
        if self.is_connection(kind) {
            return (path, self.connections(place, subresource, rest));
        }
        let mut operations = Vec::new();
        if let Some(options) = subresource.text_options().filter(|_| subresource.has("get")) {
            let description = format!("read {} of the specified {}", subresource.name, resource.kind.kind);
            let mut body = self.operation(place.id("read", "", &after), description, resource);
            let media_types: Vec<&str> = MEDIA_TYPES.iter().copied().chain(["text/plain"]).collect();
            body["responses"] = responses(&[(200, json!({ "type": "string" }))], &media_types);
            let parameters = parameters().pretty().options(self.model, options, &[]);
            operations.push(acting("get", "get", kind, parameters, body));
            return (path, path_item(operations));
        }
        let part = format!("{} of ", subresource.name);
        for verb in ["get", "update", "patch"].into_iter().filter(|verb| subresource.has(verb)) {
            operations.push(self.object(place, verb, kind, &part, &after, parameters().pretty()));
        }
        if subresource.has("create") {
            let description = format!("create {} of {}", subresource.name, names::with_article(&resource.kind.kind));
            let parameters = parameters().pretty().options(self.model, "meta.v1.CreateOptions", &[]);
            operations.push(self.create(place.id("create", "", &after), description, kind, parameters, resource));
        }
        (path, path_item(operations))
    }

    /// Renders the operations of a subresource that passes the connection on.
    fn connections(&mut self, place: &Place<'_>, subresource: &Subresource, rest: &str) -> Value {
        let kind = &subresource.kind;
        let mut methods: Vec<&'static str> = Vec::new();
        let by_verb = [("get", "get"), ("create", "post"), ("update", "put"), ("patch", "patch"), ("delete", "delete")];
        methods.extend(by_verb.into_iter().filter(|(verb, _)| subresource.has(verb)).map(|(_, method)| method));
        if subresource.has("delete") {
            methods.extend(["head", "options"]);
        }
        let options = format!("core.{}.{}", kind.version, kind.kind);
        let after = names::capitalized(&subresource.name) + if rest.is_empty() { "" } else { "WithPath" };
        let operations = methods.into_iter().map(|method| {
            let mut parameters = place.parameters(Some(&kind.kind)).options(self.model, &options, &[]);
            if !rest.is_empty() {
                parameters = parameters.path("path", "path to the resource");
            }
            let upper = method.to_ascii_uppercase();
            let description =
                format!("connect {upper} requests to {} of {}", subresource.name, place.resource.kind.kind);
            let id = place.id("connect", &names::capitalized(method), &after);
            let mut body = self.operation(id, description, place.resource);
            body["responses"] = responses(&[(200, json!({ "type": "string" }))], &["*/*"]);
            acting(method, "connect", kind, parameters, body)
        });
        path_item(operations.collect())
    }

    fn watch_list(&mut self, place: &Place<'_>) -> (String, Value) {
        let resource = place.resource;
        let after = if resource.is_namespaced && !place.is_namespaced { "ListForAllNamespaces" } else { "List" };
        let sentence = format!("watch individual changes to a list of {}. {DEPRECATED}.", resource.kind.kind);
        let operation = self.watch(place, place.id("watch", "", after), sentence, "watchlist", None);
        (place.path.clone(), path_item(vec![operation]))
    }

    fn watch_item(&mut self, place: &Place<'_>) -> (String, Value) {
        let kind = place.resource.kind.kind.clone();
        let sentence = format!(
            "watch changes to an object of kind {kind}. {DEPRECATED}, filtered to a single item with the 'fieldSelector' \
             parameter."
        );
        let operation = self.watch(place, place.id("watch", "", ""), sentence, "watch", Some(&kind));
        (format!("{}/{{name}}", place.path), path_item(vec![operation]))
    }

    fn watch(
        &mut self,
        place: &Place<'_>,
        id: String,
        sentence: String,
        action: &str,
        name_of: Option<&str>,
    ) -> Operation {
        let mut body = self.operation(id, sentence, place.resource);
        body["responses"] = responses(&[(200, self.named("meta.v1.WatchEvent"))], &streamed());
        let parameters = place.parameters(name_of).pretty().options(self.model, "meta.v1.ListOptions", &[]);
        acting("get", action, &place.resource.kind, parameters, body)
    }

    /// Renders the operation of a discovery document.
    pub fn document(&mut self, id: &str, description: &str, tag: &str, ty: &str, media_types: &[&str]) -> Value {
        let answer = self.named(ty);
        json!({ "get": {
            "description": description,
            "operationId": id,
            "responses": responses(&[(200, answer)], media_types),
            "tags": [tag],
        }})
    }

    fn operation(&self, id: String, description: String, resource: &Resource) -> Value {
        let tag = format!("{}_{}", names::group(&resource.kind.group), resource.kind.version);
        json!({ "description": description, "operationId": id, "tags": [tag] })
    }

    fn delete_options(&mut self, resource: &Resource) -> Value {
        let options = KindName { kind: "DeleteOptions".to_owned(), ..resource.kind.clone() };
        json!({ "content": { "*/*": { "schema": self.reference(&options) } } })
    }

    /// Whether a subresource of the kind passes the connection on: its kind has the options of the request.
    fn is_connection(&self, kind: &KindName) -> bool {
        let id = self.model.kind(&kind.api_version(), &kind.kind);
        kind.kind.ends_with("Options") && id.is_some_and(|id| self.model.get(id).is_hidden)
    }

    fn reference(&mut self, kind: &KindName) -> Value {
        match self.model.kind(&kind.api_version(), &kind.kind) {
            Some(id) => self.used(id),
            None => {
                let name = unknown_name(kind);
                let reference = json!({ "$ref": format!("{COMPONENTS}{name}") });
                self.unknown.insert(name, kind.clone());
                reference
            }
        }
    }

    fn named(&mut self, name: &str) -> Value {
        self.model.named(name).map_or_else(|| json!({}), |id| self.used(id))
    }

    fn used(&mut self, id: TypeId) -> Value {
        self.used.insert(id);
        json!({ "$ref": format!("{COMPONENTS}{}", component_name(self.model.get(id))) })
    }
}

/// Returns the component's name of a kind that the schema does not know: the group's parts reversed, as in
/// `com.example.v1.Widget`.
fn unknown_name(kind: &KindName) -> String {
    let group: Vec<&str> = kind.group.split('.').rev().filter(|part| !part.is_empty()).collect();
    [group.as_slice(), &[kind.version.as_str(), kind.kind.as_str()]].concat().join(".")
}

fn streamed() -> Vec<&'static str> {
    [MEDIA_TYPES, STREAM_MEDIA_TYPES].concat()
}

fn request(media_types: &[&str], schema: &Value) -> Value {
    json!({ "content": content(media_types, schema), "required": true })
}

fn content(media_types: &[&str], schema: &Value) -> Map<String, Value> {
    media_types.iter().map(|name| ((*name).to_owned(), json!({ "schema": schema }))).collect()
}

fn responses(answers: &[(u16, Value)], media_types: &[&str]) -> Value {
    let text = |code: u16| match code {
        201 => "Created",
        202 => "Accepted",
        _ => "OK",
    };
    let mut responses: Map<String, Value> = answers
        .iter()
        .map(|(code, schema)| {
            (code.to_string(), json!({ "content": content(media_types, schema), "description": text(*code) }))
        })
        .collect();
    responses.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
    responses.into()
}

fn acting(method: &'static str, action: &str, kind: &KindName, parameters: Parameters, mut body: Value) -> Operation {
    body["x-kubernetes-action"] = action.into();
    body["x-kubernetes-group-version-kind"] =
        json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    Operation { method, parameters, body }
}

/// Joins the operations of a path. Parameters that all of them have move to the path.
fn path_item(operations: Vec<Operation>) -> Value {
    let mut item = Map::new();
    let mut lists: Vec<Parameters> = operations.iter().map(|operation| operation.parameters.clone()).collect();
    let shared = Parameters::shared(&mut lists);
    for (mut operation, parameters) in operations.into_iter().zip(lists) {
        if let Some(parameters) = parameters.render() {
            operation.body["parameters"] = parameters;
        }
        item.insert(operation.method.to_owned(), operation.body);
    }
    if let Some(shared) = shared.render() {
        item.insert("parameters".to_owned(), shared);
    }
    item.into()
}
