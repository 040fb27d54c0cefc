//! The documentation of a kind's fields from an OpenAPI v3 document, in kubectl's layout.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Number of values of an enumeration in a list of fields.
const ENUM_LIMIT: usize = 4;

/// A kind's documentation that cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("field \"{0}\" does not exist")]
    MissingField(String),
    #[error("GVR ({0}) not found in OpenAPI schema")]
    ResourceNotFound(String),
    #[error("GVK {0} not found in OpenAPI schema")]
    KindNotDescribed(String),
}

/// The resource that is explained.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
}

/// Appends the documentation of a resource, or of the field at `path`. `is_recursive` lists the fields of fields by name
/// instead of the documentation of each field. As with kubectl, a field that does not exist leaves the kind in `out`.
///
/// # Errors
/// When the document does not have the resource or the field.
pub fn render(
    document: &Value,
    subject: Subject<'_>,
    path: &[&str],
    is_recursive: bool,
    out: &mut String,
) -> Result<(), ExplainError> {
    let kind = kind_of(document, subject).ok_or_else(|| {
        let Subject { group, version, resource } = subject;
        ExplainError::ResourceNotFound(format!("{group}/{version}, Resource={resource}"))
    })?;
    let text = |name: &str| kind[name].as_str().unwrap_or_default();
    if !text("group").is_empty() {
        out.push_str(&format!("GROUP:      {}\n", text("group")));
    }
    out.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", text("kind"), text("version")));
    let schemas = document["components"]["schemas"].as_object();
    let has_kind = |schema: &&Value| {
        schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| kinds.contains(kind))
    };
    let schema = schemas
        .and_then(|schemas| schemas.values().find(has_kind))
        .ok_or_else(|| ExplainError::KindNotDescribed(kind.to_string()))?;
    let explained = Explainer { document, is_recursive }.output(schema, path, &BTreeSet::new());
    if explained.is_empty() {
        return Err(ExplainError::MissingField(path.last().copied().unwrap_or_default().to_owned()));
    }
    out.push_str(&explained);
    out.push('\n');
    Ok(())
}

/// Finds the kind of a resource by the operations on its paths.
fn kind_of<'a>(document: &'a Value, subject: Subject<'_>) -> Option<&'a Value> {
    let Subject { group, version, resource } = subject;
    let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    let namespaced = format!("{root}/{version}/namespaces/{{namespace}}/{resource}");
    let cluster = format!("{root}/{version}/{resource}");
    let paths = [cluster.clone(), format!("{cluster}/{{name}}"), namespaced.clone(), format!("{namespaced}/{{name}}")];
    let items = paths.iter().filter_map(|path| document["paths"].get(path));
    let methods = ["get", "post", "put", "patch", "delete"];
    let mut operations = items.flat_map(|item| methods.iter().filter_map(move |method| item.get(*method)));
    operations.find_map(|operation| operation.get("x-kubernetes-group-version-kind"))
}

struct Explainer<'a> {
    document: &'a Value,
    is_recursive: bool,
}

impl<'a> Explainer<'a> {
    fn resolve(&self, schema: &'a Value) -> (&'a str, &'a Value) {
        let reference = schema["$ref"].as_str().unwrap_or_default();
        let found = reference.strip_prefix('#');
        (reference, found.and_then(|pointer| self.document.pointer(pointer)).unwrap_or(schema))
    }

    /// Follows the path from a schema, and returns the documentation at its end; empty if there is no such field.
    /// `passed` has the references that were followed since the last field.
    fn output(&self, schema: &'a Value, path: &[&str], passed: &BTreeSet<&'a str>) -> String {
        let (reference, resolved) = self.resolve(schema);
        let Some((first, rest)) = path.split_first() else { return self.documentation(resolved) };
        if !reference.is_empty() && passed.contains(reference) {
            return String::new();
        }
        let mut passed = passed.clone();
        passed.insert(reference);
        if let Some(field) = resolved["properties"].get(first) {
            let mut out = String::new();
            if rest.is_empty() {
                let values = enumeration(field, None, 0);
                out = format!("FIELD: {first} <{}>\n{values}\n\n", self.type_of(field));
            }
            let inner = self.output(field, rest, &BTreeSet::new());
            return if inner.is_empty() { inner } else { out + &inner };
        }
        if let Some(item) = nested(resolved).next() {
            return self.output(item, path, &passed);
        }
        let mut alternatives = alternatives(resolved).map(|schema| self.output(schema, path, &passed));
        alternatives.find(|found| !found.is_empty()).unwrap_or_default()
    }

    fn documentation(&self, schema: &'a Value) -> String {
        let mut description = String::new();
        self.describe(schema, &mut description);
        if description.is_empty() {
            description.push_str("<empty>");
        }
        let mut out = format!("DESCRIPTION:\n{}\n", indent(4, &wrap(76, &description)));
        let mut fields = String::new();
        self.fields(schema, 1, &BTreeSet::new(), &mut fields);
        if !fields.is_empty() {
            out.push_str("FIELDS:\n");
            out.push_str(&fields);
        }
        out
    }

    /// Collects the descriptions of a schema and of those that it consists of.
    fn describe(&self, schema: &'a Value, out: &mut String) {
        let (_, resolved) = self.resolve(schema);
        if let Some(text) = resolved["description"].as_str().filter(|text| !text.is_empty()) {
            out.push_str(text);
            out.push('\n');
        }
        alternatives(resolved).for_each(|schema| self.describe(schema, out));
        nested(resolved).for_each(|schema| self.describe(schema, out));
    }

    /// Lists the fields of a schema. `passed` has the references on the way to it, which ends cycles.
    fn fields(&self, schema: &'a Value, level: usize, passed: &BTreeSet<&'a str>, out: &mut String) {
        let (reference, resolved) = self.resolve(schema);
        if !reference.is_empty() && passed.contains(reference) {
            return;
        }
        let mut passed = passed.clone();
        passed.insert(reference);
        let none = Map::new();
        let required = resolved["required"].as_array();
        for (name, field) in resolved["properties"].as_object().unwrap_or(&none) {
            let is_required = required.is_some_and(|names| names.iter().any(|known| known == name));
            self.field(name, field, is_required, level, out);
            if self.is_recursive {
                self.fields(field, level + 1, &passed, out);
            }
        }
        alternatives(resolved).for_each(|schema| self.fields(schema, level, &passed, out));
        nested(resolved).for_each(|schema| self.fields(schema, level, &passed, out));
    }

    fn field(&self, name: &str, field: &'a Value, is_required: bool, level: usize, out: &mut String) {
        let by = level * 2;
        let required = if is_required { " -required-" } else { "" };
        let values = enumeration(field, Some(ENUM_LIMIT), by);
        out.push_str(&format!("{}\t<{}>{required}{values}\n", indent(by, name), self.type_of(field)));
        if !self.is_recursive {
            let text = field["description"].as_str().filter(|text| !text.is_empty()).unwrap_or("<no description>");
            out.push_str(&indent(by + 2, &wrap(78_usize.saturating_sub(by), text)));
            out.push_str("\n\n");
        }
    }

    /// Returns a type as a reader would name it, such as `[]Container` or `map[string]string`.
    fn type_of(&self, schema: &'a Value) -> String {
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            return format!("[]{}", self.type_of(item));
        }
        if let Some(value) = schema.get("additionalProperties").filter(|value| value.is_object()) {
            return format!("map[string]{}", self.type_of(value));
        }
        if let [only] = alternatives(schema).collect::<Vec<_>>().as_slice()
            && schema.get("properties").is_none()
        {
            return self.type_of(only);
        }
        let (reference, resolved) = self.resolve(schema);
        match resolved["type"].as_str() {
            None | Some("object") if !reference.is_empty() => {
                let name = reference.rsplit(['/', '.']).next().filter(|name| !name.is_empty());
                name.unwrap_or("Object").to_owned()
            }
            None | Some("object") => "Object".to_owned(),
            Some(name) => name.to_owned(),
        }
    }
}

/// Returns the schemas of a list's items and of a map's values.
fn nested(schema: &Value) -> impl Iterator<Item = &Value> {
    let known = ["items", "additionalProperties"].into_iter().filter_map(|name| schema.get(name));
    known.filter(|schema| schema.is_object())
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["allOf"].as_array().into_iter().flatten()
}

/// Renders an enumeration: one value a line, or with `limit` the first values on one line.
fn enumeration(schema: &Value, limit: Option<usize>, by: usize) -> String {
    let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) else { return String::new() };
    let show = |value: &Value| match value.as_str() {
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    match limit {
        None => values.iter().fold("ENUM:".to_owned(), |out, value| out + "\n    " + &show(value)),
        Some(limit) => {
            let shown: Vec<String> = values.iter().take(limit).map(show).collect();
            let rest = if values.len() > limit { ", ...." } else { "" };
            format!("\n{}enum: {}{rest}", " ".repeat(by), shown.join(", "))
        }
    }
}

fn indent(by: usize, text: &str) -> String {
    let pad = " ".repeat(by);
    format!("{pad}{}", text.replace('\n', &format!("\n{pad}")))
}

/// Breaks lines at spaces so that they have at most `limit` characters. Longer words stay whole.
fn wrap(limit: usize, text: &str) -> String {
    let mut out = String::new();
    // Characters of the current line, and the spaces and the word that are not on it yet.
    let (mut current, mut spaces, mut word) = (0, String::new(), String::new());
    let length = |text: &str| text.chars().count();
    for char in text.chars() {
        if char == '\n' || char.is_whitespace() && char != '\u{a0}' {
            if !word.is_empty() || (char == '\n' && current + length(&spaces) <= limit) {
                current += length(&spaces) + length(&word);
                out.push_str(&spaces);
                out.push_str(&word);
                spaces.clear();
                word.clear();
            }
            if char == '\n' {
                spaces.clear();
                out.push(char);
                current = 0;
            } else {
                spaces.push(char);
            }
        } else {
            word.push(char);
            if current + length(&spaces) + length(&word) > limit && length(&word) < limit {
                out.push('\n');
                current = 0;
                spaces.clear();
            }
        }
    }
    if !word.is_empty() || current + length(&spaces) <= limit {
        out.push_str(&spaces);
        out.push_str(&word);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        let kind = json!({ "group": "apps", "version": "v1", "kind": "Tree" });
        let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/io.k8s.{name}") });
        json!({
            "paths": { "/apis/apps/v1/trees/{name}": { "patch": { "x-kubernetes-group-version-kind": kind } } },
            "components": { "schemas": {
                "io.k8s.Tree": {
                    "description": "A tree.", "type": "object", "required": ["spec"],
                    "x-kubernetes-group-version-kind": [kind],
                    "properties": { "spec": { "allOf": [reference("Node")], "default": {}, "description": "The root." } },
                },
                "io.k8s.Node": { "description": "A node.", "type": "object", "properties": {
                    "children": { "type": "array", "items": reference("Node"), "description": "Nodes below." },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                    "kind": { "type": "string", "enum": ["", "a", "b", "c", "d"] },
                }},
            }},
        })
    }

    const TREES: Subject<'_> = Subject { group: "apps", version: "v1", resource: "trees" };

    fn rendered(path: &[&str], is_recursive: bool) -> (Result<(), ExplainError>, String) {
        let mut out = String::new();
        (render(&document(), TREES, path, is_recursive, &mut out), out)
    }

    #[test]
    fn a_field_has_its_type_and_its_fields() {
        let (result, text) = rendered(&["spec"], false);
        let head = "GROUP:      apps\nKIND:       Tree\nVERSION:    v1\n\nFIELD: spec <Node>\n\n\nDESCRIPTION:\n";
        let body = "    The root.\n    A node.\n    \nFIELDS:\n  children\t<[]Node>\n    Nodes below.\n\n  \
                    kind\t<string>\n  enum: \"\", a, b, c, ....\n    <no description>\n\n  \
                    labels\t<map[string]string>\n    <no description>\n\n\n";
        assert_eq!((result, text), (Ok(()), format!("{head}{body}")));
    }

    #[test]
    fn a_recursive_list_ends_at_a_cycle() {
        let (_, text) = rendered(&[], true);
        let body = "    A tree.\n    \nFIELDS:\n  spec\t<Node> -required-\n    children\t<[]Node>\n    \
                    kind\t<string>\n    enum: \"\", a, b, c, ....\n    labels\t<map[string]string>\n\n";
        assert!(text.ends_with(body), "{text}");
    }

    #[test]
    fn paths_lead_through_lists_and_end_with_an_error() {
        let (_, text) = rendered(&["spec", "children", "children", "kind"], false);
        assert!(text.contains("FIELD: kind <string>\nENUM:\n    \"\"\n    a\n"), "{text}");
        let head = "GROUP:      apps\nKIND:       Tree\nVERSION:    v1\n\n".to_owned();
        assert_eq!(rendered(&["spec", "bark"], false), (Err(ExplainError::MissingField("bark".to_owned())), head));
    }

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap(6, "one two three"), "one\ntwo\nthree");
        assert_eq!(wrap(3, "one-two three"), "one-two\nthree");
        assert_eq!(wrap(9, "one two\nthree"), "one two\nthree");
    }
}
