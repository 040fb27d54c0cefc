//! The lines of the data, first as they are written, then with their names resolved.

use serde_json::Value;

use super::{DataError, Names, Package, innermost, kinds_of};
use crate::model::{Field, Form, Kind, List, ListType, MapType, Patch, Rules, SchemaOr, Shape, Text, Type, TypeId};

/// A line of a package's text.
pub(super) enum Line {
    Type { ty: Box<Type> },
    Enum { name: &'static str, values: Vec<Value> },
    Field(FieldLine),
}

/// The line of a field.
pub(super) struct FieldLine {
    pub line: &'static str,
    name: &'static str,
    number: u32,
    value: &'static str,
    marks: Vec<&'static str>,
}

/// A field, or a message whose fields take its place.
pub(super) enum Entry {
    Field(Box<Field>),
    Inline { number: u32, ty: TypeId },
}

impl Line {
    /// Parses the lines of a package.
    pub fn all(package: &'static Package) -> Result<Vec<Line>, DataError> {
        let mut lines = Vec::new();
        let (mut prefix, mut api_version) = ("", "-");
        for line in package.types.lines() {
            let problem = |problem| DataError { package: package.name, line, problem };
            // The values of an enum may have spaces in them.
            let words: Vec<&'static str> = if line.starts_with("enum ") {
                line.splitn(3, ' ').collect()
            } else {
                line.split_whitespace().collect()
            };
            match *words.as_slice() {
                [] | ["#", ..] => {}
                ["package", _, in_openapi, version] => (prefix, api_version) = (in_openapi, version),
                ["enum", name, values] => {
                    let values = serde_json::from_str(values).map_err(|_| problem("not a JSON array"))?;
                    lines.push(Line::Enum { name, values });
                }
                [name, number, value, ref marks @ ..] if line.starts_with(' ') => {
                    let number = number.parse().map_err(|_| problem("not a number"))?;
                    lines.push(Line::Field(FieldLine { line, name, number, value, marks: marks.to_vec() }));
                }
                [name, ref marks @ ..] => {
                    let mut ty = Type {
                        package: Text::Borrowed(package.name),
                        name: Text::Borrowed(name),
                        prefix: Text::Borrowed(prefix),
                        ..Type::default()
                    };
                    for &mark in marks {
                        mark_type(&mut ty, mark, api_version).ok_or_else(|| problem("unknown mark"))?;
                    }
                    lines.push(Line::Type { ty: Box::new(ty) });
                }
            }
        }
        Ok(lines)
    }
}

fn mark_type(ty: &mut Type, mark: &'static str, api_version: &'static str) -> Option<()> {
    match mark.split_once('=').unwrap_or((mark, "")) {
        ("typed", _) => ty.is_typed = true,
        ("hidden", _) => ty.is_hidden = true,
        ("kind", "") => ty.kinds = kinds_of(api_version),
        ("kind", other) => ty.kinds = kinds_of(other),
        ("scalar", _) => ty.form = Form::Scalar,
        ("raw", _) => ty.form = Form::Raw,
        ("or", "bool") => ty.form = Form::SchemaOr(SchemaOr::Bool),
        ("or", "array") => ty.form = Form::SchemaOr(SchemaOr::Schemas),
        ("or", "strings") => ty.form = Form::SchemaOr(SchemaOr::Strings),
        ("map", map) => ty.map_type = map_type(map)?,
        ("unions", unions) => ty.unions = Some(serde_json::from_str(unions).ok()?),
        _ => return None,
    }
    Some(())
}

fn map_type(name: &str) -> Option<MapType> {
    match name {
        "atomic" => Some(MapType::Atomic),
        "granular" => Some(MapType::Granular),
        _ => None,
    }
}

impl FieldLine {
    /// Resolves the names of types and enums.
    pub fn resolve(&self, package: &str, names: &Names) -> Result<Entry, &'static str> {
        let shape = shape(self.value, package, names).ok_or("unknown type")?;
        if self.marks.contains(&"inline") {
            let ty = shape.kind.object().ok_or("only a message can be inline")?;
            return Ok(Entry::Inline { number: self.number, ty });
        }
        let mut field = Field {
            name: Text::Borrowed(self.name),
            number: self.number,
            position: 0,
            shape,
            is_pointer: false,
            is_always_written: false,
            is_required: false,
            patch: None,
            declared_by: TypeId::default(),
        };
        for &mark in &self.marks {
            mark_field(&mut field, mark, package, names).ok_or("unknown mark")?;
        }
        Ok(Entry::Field(Box::new(field)))
    }
}

fn mark_field(field: &mut Field, mark: &'static str, package: &str, names: &Names) -> Option<()> {
    if let Some(rule) = mark.strip_prefix("rule:") {
        return mark_rule(rules(&mut field.shape), rule);
    }
    match mark.split_once('=').unwrap_or((mark, "")) {
        ("required", _) => field.is_required = true,
        ("always", _) => field.is_always_written = true,
        ("pointer", _) => field.is_pointer = true,
        ("map", map) => field.shape.map_type = map_type(map)?,
        ("patch", patch) => field.patch = Some(self::patch(patch)?),
        ("default", default) => rules(&mut field.shape).default = Some(serde_json::from_str(default).ok()?),
        ("enum", name) => {
            let own = names.enums.get(&format!("{package}.{name}"));
            rules(innermost(&mut field.shape)).enumeration.clone_from(own.or_else(|| names.enums.get(name))?);
        }
        ("list", list) => {
            let list_type = match list {
                "atomic" => ListType::Atomic,
                "set" => ListType::Set,
                keyed => {
                    let keys = keyed.strip_prefix("map(")?.strip_suffix(')')?;
                    ListType::Map(keys.split(',').map(Text::Borrowed).collect())
                }
            };
            match &mut field.shape.kind {
                Kind::List(list) => list.list_type = list_type,
                // A list of bytes is a string in JSON.
                Kind::Bytes => rules(&mut field.shape).shows_list_type = true,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

fn rules(shape: &mut Shape) -> &mut Rules {
    shape.rules.get_or_insert_with(Box::default)
}

/// Takes one of upstream's validation tags.
fn mark_rule(rules: &mut Rules, rule: &'static str) -> Option<()> {
    let (name, value) = rule.split_once('=').unwrap_or((rule, ""));
    match name {
        "required" => rules.is_required = true,
        "immutable" => rules.is_immutable = true,
        "unique" => rules.has_unique_items = value == "set",
        "maxItems" => rules.max_items = Some(value.parse().ok()?),
        "maxLength" => rules.max_length = Some(value.parse().ok()?),
        "maxBytes" => rules.max_bytes = Some(value.parse().ok()?),
        "minimum" => rules.minimum = Some(value.parse().ok()?),
        "maximum" => rules.maximum = Some(value.parse().ok()?),
        "format" => rules.format = Some(Text::Borrowed(value)),
        _ => return None,
    }
    Some(())
}

/// Parses `merge`, `replace`, `retainKeys`, `merge(name)` or `merge,retainKeys(name)`.
fn patch(text: &'static str) -> Option<Patch> {
    let (strategies, key) = match text.split_once('(') {
        Some((strategies, key)) => (strategies, Some(Text::Borrowed(key.strip_suffix(')')?))),
        None => (text, None),
    };
    let mut patch = Patch { key, ..Patch::default() };
    for strategy in strategies.split(',') {
        match strategy {
            "merge" => patch.merges = true,
            "replace" => patch.replaces = true,
            "retainKeys" => patch.retains_keys = true,
            _ => return None,
        }
    }
    Some(patch)
}

fn shape(value: &'static str, package: &str, names: &Names) -> Option<Shape> {
    let kind = if let Some(inner) = value.strip_prefix('[') {
        let item = shape(inner.strip_suffix(']')?, package, names)?;
        Kind::List(Box::new(List { item, list_type: ListType::Unset }))
    } else if let Some(inner) = value.strip_prefix('{') {
        Kind::Map(Box::new(shape(inner.strip_suffix('}')?, package, names)?))
    } else {
        kind(value, package, names)?
    };
    Some(Shape { kind, ..Shape::default() })
}

fn kind(name: &str, package: &str, names: &Names) -> Option<Kind> {
    Some(match name {
        "any" => Kind::Any,
        "bool" => Kind::Bool,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "Time" => Kind::Time,
        "MicroTime" => Kind::MicroTime,
        "Quantity" => Kind::Quantity,
        "IntOrString" => Kind::IntOrString,
        "Strings" => Kind::Strings,
        other => {
            let own = names.types.get(&format!("{package}.{other}"));
            let (id, form) = own.or_else(|| names.types.get(other)).map(|known| (known.id, known.form))?;
            match form {
                Form::Object => Kind::Object(id),
                Form::Raw => Kind::Raw(id),
                Form::SchemaOr(_) => Kind::SchemaOr(id),
                Form::Scalar => return None,
            }
        }
    })
}
