//! The built-in types: the texts in `data/`, one for each package, and the loader of their lines. The documentation in
//! `data/docs` is that of Kubernetes (Apache License 2.0), which OpenAPI has to serve.
//!
//! ```text
//! package core.v1 io.k8s.api.core.v1 v1        name, prefix in OpenAPI, apiVersion of its kinds (`-`: none)
//! enum DNSPolicy ["ClusterFirst","Default"]
//!
//! Pod typed kind                               a type with its marks
//!   metadata 1 meta.v1.ObjectMeta              a field: name in JSON, number in protobuf, value, marks
//!   ports 6 [ContainerPort] list=map(containerPort,protocol) patch=merge(containerPort)
//!   _ 2 VolumeSource inline                    a message whose fields are the object's own in JSON
//! ```
//!
//! Marks of a type: `typed` (has `apiVersion` and `kind`), `kind` (under the package's `apiVersion`), `kind=V` (under V,
//! `*` is every one), `hidden` (no component in OpenAPI), `scalar`, `raw`, `or=…` ([`crate::model::Form`]), `map=…`,
//! `unions=…`. Marks of a field: `required`, `always`, `pointer`, `list=…`, `map=…`, `patch=…`, `enum=…`, `default=…`,
//! `rule:…` (upstream's validation tags). A value is a scalar, a type, `[value]` (list) or `{value}` (map from strings).

mod line;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

use self::line::{Entry, Line};
use crate::model::{Field, Form, Kind, KindsOf, Model, Shape, Text, Type, TypeId, WireField, WireTarget};

/// Texts of one package.
struct Package {
    name: &'static str,
    types: &'static str,
    docs: &'static str,
}

macro_rules! packages {
    ($($name:literal),* $(,)?) => {
        &[$(Package {
            name: $name,
            types: include_str!(concat!("../../data/", $name, ".txt")),
            docs: include_str!(concat!("../../data/docs/", $name, ".txt")),
        }),*]
    };
}

static PACKAGES: &[Package] = packages![
    "admission.v1",
    "admissionregistration.v1",
    "apidiscovery.v2",
    "apiextensions.v1",
    "apiregistration.v1",
    "apps.v1",
    "authentication.v1",
    "authorization.v1",
    "autoscaling.v1",
    "autoscaling.v2",
    "batch.v1",
    "certificates.v1",
    "coordination.v1",
    "core.v1",
    "discovery.v1",
    "events.v1",
    "flowcontrol.v1",
    "intstr",
    "meta.v1",
    "networking.v1",
    "node.v1",
    "policy.v1",
    "rbac.v1",
    "resource",
    "resource.v1",
    "runtime",
    "scheduling.v1",
    "storage.v1",
    "version",
];

/// A line of the data that the loader does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{package}: line {line:?}: {problem}")]
pub struct DataError {
    pub package: &'static str,
    pub line: &'static str,
    pub problem: &'static str,
}

/// Returns the built-in types. The first call parses the data, which takes a few milliseconds.
#[must_use]
pub fn builtin() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load().expect("the embedded data is well-formed, since a test loads it"))
}

/// Returns the documentation of a built-in type, or of a field that it declares.
#[must_use]
pub fn documentation(ty: &Type, field: Option<&str>) -> Option<String> {
    static DOCS: OnceLock<HashMap<&str, HashMap<&str, &str>>> = OnceLock::new();
    let packages = DOCS.get_or_init(|| {
        let lines = |package: &Package| package.docs.lines().filter_map(|line| line.split_once(' ')).collect();
        PACKAGES.iter().map(|package| (package.name, lines(package))).collect()
    });
    let lines = packages.get(ty.package.as_ref())?;
    let text = match field {
        None => lines.get(ty.name.as_ref())?,
        Some(field) => lines.get(format!("{}.{field}", ty.name).as_str())?,
    };
    Some(unescape(text))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

/// A type while it is loaded: its own fields and messages, in the order of declaration.
struct Draft {
    ty: Type,
    entries: Vec<Entry>,
}

/// Names while the data is loaded.
struct Names {
    types: HashMap<String, Named>,
    enums: HashMap<String, Vec<Value>>,
}

/// A type's index and form.
struct Named {
    id: TypeId,
    form: Form,
}

fn load() -> Result<Model, DataError> {
    let mut model = Model::default();
    let mut names = Names { types: HashMap::new(), enums: HashMap::new() };
    let mut lines = Vec::new();
    for package in PACKAGES {
        for line in Line::all(package)? {
            match &line {
                Line::Type { ty } => {
                    let id = model.add(Type::clone(ty));
                    names.types.insert(ty.qualified_name(), Named { id, form: ty.form });
                }
                Line::Enum { name, values } => {
                    names.enums.insert(format!("{}.{name}", package.name), values.clone());
                }
                Line::Field(_) => {}
            }
            lines.push((package.name, line));
        }
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for (package, line) in lines {
        match line {
            Line::Type { ty } => drafts.push(Draft { ty: *ty, entries: Vec::new() }),
            Line::Enum { .. } => {}
            Line::Field(field) => {
                let problem = |problem| DataError { package, line: field.line, problem };
                let entry = field.resolve(package, &names).map_err(problem)?;
                drafts.last_mut().ok_or_else(|| problem("a field without a type"))?.entries.push(entry);
            }
        }
    }
    let ids: Vec<TypeId> = model.types().map(|(id, _)| id).collect();
    let by_id: HashMap<TypeId, usize> = ids.iter().copied().zip(0..).collect();
    let type_meta = names.types.get("meta.v1.TypeMeta").map(|named| named.id);
    for (index, id) in ids.iter().enumerate() {
        let mut fields = Vec::new();
        if drafts[index].ty.is_typed
            && let Some(type_meta) = type_meta
        {
            flatten(&drafts, &by_id, type_meta, &mut fields);
            fields.iter_mut().for_each(|field: &mut Field| field.number = 0);
        }
        flatten(&drafts, &by_id, *id, &mut fields);
        model.set(*id, finish(&drafts[index], fields));
    }
    model.mark(crate::defaults::is_defaulted, |ty| ty.has_defaults, |ty| ty.has_defaults = true);
    let is_ruled = |field: &Field| field.shape.rules.as_deref().is_some_and(crate::validate::is_ruled);
    model.mark(is_ruled, |ty| ty.has_rules, |ty| ty.has_rules = true);
    Ok(model)
}

/// Collects the fields that a type has in JSON, in the order of declaration.
fn flatten(drafts: &[Draft], by_id: &HashMap<TypeId, usize>, id: TypeId, fields: &mut Vec<Field>) {
    for entry in by_id.get(&id).map(|index| &drafts[*index].entries).into_iter().flatten() {
        match entry {
            Entry::Inline { ty, .. } => flatten(drafts, by_id, *ty, fields),
            Entry::Field(field) => fields.push(Field { declared_by: id, ..Field::clone(field) }),
        }
    }
}

fn finish(draft: &Draft, mut fields: Vec<Field>) -> Type {
    for (position, field) in (0..).zip(&mut fields) {
        field.position = position;
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let mut ty = Type { fields, ..draft.ty.clone() };
    for entry in &draft.entries {
        let (number, target) = match entry {
            Entry::Inline { number, ty } => (*number, Some(WireTarget::Inline(*ty))),
            Entry::Field(field) => {
                let index = ty.index(&field.name).and_then(|index| u16::try_from(index).ok());
                (field.number, index.map(WireTarget::Field))
            }
        };
        if let Some(target) = target.filter(|_| number > 0) {
            ty.wire.push(WireField { number, target });
        }
    }
    ty.wire.sort_by_key(|field| field.number);
    ty
}

/// The `apiVersion` of a package's kinds.
fn kinds_of(api_version: &'static str) -> KindsOf {
    match api_version {
        "*" => KindsOf::Every,
        "-" => KindsOf::None,
        other => KindsOf::One(Text::Borrowed(other)),
    }
}

/// Marks every value of a list or map where the mark is about the values.
fn innermost(shape: &mut Shape) -> &mut Shape {
    match shape {
        Shape { kind: Kind::List(list), .. } => innermost(&mut list.item),
        Shape { kind: Kind::Map(value), .. } => innermost(value),
        other => other,
    }
}

#[cfg(test)]
mod tests;
