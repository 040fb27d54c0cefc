//! The parameters of operations. Query parameters are the fields of the options' types.

use quorate_schema::data::documentation;
use quorate_schema::model::{Kind, Model};
use serde_json::{Map, Value, json};

use crate::pipeline::patch;

/// Fields that name an options' type in a body. They are no parameters of a query.
const TYPE_FIELDS: [&str; 2] = ["apiVersion", "kind"];
/// Parameters of Kubernetes that this server does not support.
const UNSUPPORTED: [&str; 2] = ["ignoreStoreReadErrorWithClusterBreakingPotential", "shardSelector"];
/// Parameters of a list that have no meaning for the deletion of a collection.
pub(super) const WATCH_ONLY: [&str; 2] = ["allowWatchBookmarks", "watch"];
const PRETTY: &str = "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates \
                      a browser or command-line HTTP tool (curl and wget).";

/// Parameters by name, which is the order of the documents.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Map<String, Value>);

impl Parameters {
    fn add(mut self, name: &str, mut parameter: Value) -> Self {
        parameter["name"] = name.into();
        // A field of a query and a part of the path may have the same name.
        let key = format!("{name} {}", parameter["in"]);
        self.0.insert(key, parameter);
        self
    }

    pub fn pretty(self) -> Self {
        self.add("pretty", query(PRETTY, "string"))
    }

    /// Adds a part of the path.
    pub fn path(self, name: &str, description: &str) -> Self {
        let schema = json!({ "type": "string", "uniqueItems": true });
        self.add(name, json!({ "description": description, "in": "path", "required": true, "schema": schema }))
    }

    /// Adds the fields of an options' type, such as `meta.v1.ListOptions`, except for `excluded`.
    pub fn options(mut self, model: &Model, name: &str, excluded: &[&str]) -> Self {
        let Some(ty) = model.named(name).map(|id| model.get(id)) else { return self };
        for field in &ty.fields {
            let name = field.name.as_ref();
            if TYPE_FIELDS.contains(&name)
                || UNSUPPORTED.contains(&name)
                || excluded.contains(&name)
                || (name == "force" && !patch::has_apply())
            {
                continue;
            }
            let Some(kind) = scalar(&field.shape.kind) else { continue };
            let description = documentation(model.get(field.declared_by), Some(name)).unwrap_or_default();
            self = self.add(name, query(&description, kind));
        }
        self
    }

    /// Takes the parameters that all of `lists` have out of them.
    pub fn shared(lists: &mut [Parameters]) -> Parameters {
        let Some((first, others)) = lists.split_first() else { return Parameters::default() };
        let is_shared = |name: &String| others.iter().all(|other| other.0.contains_key(name));
        let shared: Map<String, Value> = first
            .0
            .iter()
            .filter(|(name, _)| is_shared(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for list in lists {
            list.0.retain(|name, _| !shared.contains_key(name));
        }
        Parameters(shared)
    }

    /// Returns the list for the document, unless it is empty.
    pub fn render(self) -> Option<Value> {
        (!self.0.is_empty()).then(|| self.0.into_iter().map(|(_, value)| value).collect())
    }
}

fn query(description: &str, kind: &str) -> Value {
    json!({ "description": description, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

/// Returns the type of a parameter. A list is a parameter that is repeated; other values have no form in a query.
fn scalar(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::String => Some("string"),
        Kind::Bool => Some("boolean"),
        Kind::Int32 | Kind::Int64 => Some("integer"),
        Kind::List(list) => scalar(&list.item.kind),
        _ => None,
    }
}
