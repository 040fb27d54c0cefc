//! The visitor of values. One implementation serves JSON bytes, values, and every other format that serde reads.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::{Map, Number, Value};

use super::report::{Report, Step, StrictError};
use super::scalar;
use crate::model::{Form, Kind, List, Model, SchemaOr, Shape, Type, TypeId};

/// Maximum nesting depth, as in `serde_json`. A value that was not parsed from JSON may be deeper.
const MAX_DEPTH: u32 = 128;
/// Maximum number of elements of all lists of a document. The lists of real objects have a few thousand. An element may
/// take two bytes in a body, but hundreds with its defaults, or with the errors about it.
const MAX_ELEMENTS: usize = 50_000;

/// The decoding of one value as a shape.
pub(super) struct Walk<'a> {
    model: &'a Model,
    shape: &'a Shape,
    report: &'a mut Report,
    depth: u32,
}

impl<'a> Walk<'a> {
    pub fn new(model: &'a Model, shape: &'a Shape, report: &'a mut Report) -> Self {
        Walk { model, shape, report, depth: 0 }
    }

    fn fail<E: Error>(self, message: String) -> E {
        let error = E::custom(&message);
        self.report.fail(message);
        error
    }

    fn wrong<E: Error>(self, found: Unexpected<'_>) -> E {
        let message = scalar::invalid_type(found, self.model, &self.shape.kind);
        self.fail(message)
    }

    fn scalar<E: Error>(self, result: Result<Value, String>) -> Result<Value, E> {
        result.map_err(|message| self.fail(message))
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.shape.kind {
            Kind::Any | Kind::Raw(_) => Value::deserialize(deserializer),
            _ if self.depth > MAX_DEPTH => Err(self.fail(format!("nested deeper than {MAX_DEPTH} levels"))),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&scalar::expected(self.model, &self.shape.kind))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match &self.shape.kind {
            Kind::Bool => Ok(Value::Bool(value)),
            Kind::SchemaOr(id) if self.model.get(*id).form == Form::SchemaOr(SchemaOr::Bool) => Ok(Value::Bool(value)),
            Kind::Quantity => self.scalar(scalar::quantity(&value.to_string())),
            _ => Err(self.wrong(Unexpected::Bool(value))),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        let result = scalar::integer(&self.shape.kind, value);
        match result {
            Some(result) => self.scalar(result),
            None => Err(self.wrong(Unexpected::Signed(value))),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        if let Ok(value) = i64::try_from(value) {
            return self.visit_i64(value);
        }
        match &self.shape.kind {
            Kind::Double => Ok(value.into()),
            Kind::Quantity => self.scalar(scalar::quantity(&value.to_string())),
            kind @ (Kind::Int32 | Kind::Int64 | Kind::IntOrString) => {
                let message = scalar::out_of_range(Unexpected::Unsigned(value), kind);
                Err(self.fail(message))
            }
            _ => Err(self.wrong(Unexpected::Unsigned(value))),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match (&self.shape.kind, Number::from_f64(value)) {
            (Kind::Double, Some(number)) => Ok(number.into()),
            (Kind::Quantity, Some(number)) => self.scalar(scalar::quantity(&scalar::notation(&number))),
            _ => Err(self.wrong(Unexpected::Float(value))),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        match scalar::text(&self.shape.kind, text) {
            Some(result) => self.scalar(result),
            None => Err(self.wrong(Unexpected::Str(text))),
        }
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        match self.shape.kind {
            Kind::String => Ok(Value::String(text)),
            _ => self.visit_str(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
        let strings = Shape { kind: Kind::String, ..Shape::default() };
        let shape = self.shape;
        match &shape.kind {
            Kind::List(list) => {
                let List { item, .. } = list.as_ref();
                sequence(self, item, items)
            }
            Kind::Strings => sequence(self, &strings, items),
            Kind::SchemaOr(id) => match self.model.get(*id).form {
                Form::SchemaOr(SchemaOr::Schemas) => match schema(self.model) {
                    Some(shape) => sequence(self, &shape, items),
                    None => Err(self.wrong(Unexpected::Seq)),
                },
                Form::SchemaOr(SchemaOr::Strings) => sequence(self, &strings, items),
                _ => Err(self.wrong(Unexpected::Seq)),
            },
            Kind::Quantity => self.scalar(scalar::quantity("[]")),
            _ => Err(self.wrong(Unexpected::Seq)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Value, A::Error> {
        let (shape, model) = (self.shape, self.model);
        match &shape.kind {
            Kind::Object(id) => {
                let ty = model.get(*id);
                object(self, ty, fields)
            }
            Kind::SchemaOr(_) => match self.model.named(SCHEMA) {
                Some(id) => {
                    let ty = model.get(id);
                    object(self, ty, fields)
                }
                None => Err(self.wrong(Unexpected::Map)),
            },
            Kind::Map(value) => {
                let value = value.as_ref();
                entries(self, value, fields)
            }
            Kind::Quantity => self.scalar(scalar::quantity("{}")),
            _ => Err(self.wrong(Unexpected::Map)),
        }
    }
}

const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";

fn schema(model: &Model) -> Option<Shape> {
    model.named(SCHEMA).map(|id: TypeId| Shape { kind: Kind::Object(id), ..Shape::default() })
}

fn sequence<'de, A: SeqAccess<'de>>(walk: Walk<'_>, item: &Shape, mut items: A) -> Result<Value, A::Error> {
    let Walk { model, report, depth, .. } = walk;
    let mut list = Vec::new();
    loop {
        let mark = report.mark();
        let next = items.next_element_seed(Walk { model, shape: item, report, depth: depth + 1 });
        report.enter(mark, Step::Index(list.len()));
        let Some(value) = next? else { return Ok(Value::Array(list)) };
        report.elements += 1;
        if report.elements > MAX_ELEMENTS {
            let message = format!("the lists of the document have more than {MAX_ELEMENTS} elements");
            report.fail(message.clone());
            return Err(A::Error::custom(message));
        }
        list.push(if value.is_null() { scalar::zero(item) } else { value });
    }
}

fn entries<'de, A: MapAccess<'de>>(walk: Walk<'_>, shape: &Shape, mut entries: A) -> Result<Value, A::Error> {
    let Walk { model, report, depth, .. } = walk;
    let mut map = Map::new();
    let first = report.mark();
    while let Some(key) = entries.next_key::<String>()? {
        if map.contains_key(&key) {
            report.strict(first, StrictError::Duplicate(key.clone()));
        }
        let mark = report.mark();
        let value = entries.next_value_seed(Walk { model, shape, report, depth: depth + 1 });
        report.enter(mark, Step::Name(&key));
        map.insert(
            key,
            match value? {
                Value::Null => scalar::zero(shape),
                value => value,
            },
        );
    }
    Ok(Value::Object(map))
}

fn object<'de, A: MapAccess<'de>>(walk: Walk<'_>, ty: &Type, mut fields: A) -> Result<Value, A::Error> {
    let Walk { model, report, depth, .. } = walk;
    let mut map = Map::new();
    let mut seen = Seen::default();
    let first = report.mark();
    while let Some(key) = fields.next_key_seed(KeyOf(ty))? {
        match key {
            Key::Field(index) => {
                let field = &ty.fields[index];
                if !seen.insert(index) {
                    report.strict(first, StrictError::Duplicate(field.name.clone().into_owned()));
                }
                let mark = report.mark();
                let value = fields.next_value_seed(Walk { model, shape: &field.shape, report, depth: depth + 1 });
                report.enter(mark, Step::Name(&field.name));
                match value? {
                    Value::Null if !is_nullable(&field.shape) => {
                        map.remove(field.name.as_ref());
                    }
                    value => {
                        map.insert(field.name.clone().into_owned(), value);
                    }
                }
            }
            Key::Unknown(name) if ty.keeps_unknown => {
                let value = fields.next_value()?;
                if map.insert(name.clone(), value).is_some() {
                    report.strict(first, StrictError::Duplicate(name));
                }
            }
            Key::Unknown(name) => {
                fields.next_value::<IgnoredAny>()?;
                report.strict(first, StrictError::Unknown(name));
            }
        }
    }
    Ok(Value::Object(map))
}

fn is_nullable(shape: &Shape) -> bool {
    shape.rules.as_ref().is_some_and(|rules| rules.is_nullable)
}

/// A key of an object: the index of a field, or a name that the type does not have.
enum Key {
    Field(usize),
    Unknown(String),
}

struct KeyOf<'a>(&'a Type);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        Ok(self.0.index(name).map_or_else(|| Key::Unknown(name.to_owned()), Key::Field))
    }
}

/// The fields of one object that have been read.
#[derive(Default)]
struct Seen {
    first: u128,
    /// A custom resource may have more than 128 fields.
    rest: HashSet<usize>,
}

impl Seen {
    /// Returns whether the field is new.
    fn insert(&mut self, index: usize) -> bool {
        match u32::try_from(index).ok().and_then(|index| 1_u128.checked_shl(index)) {
            Some(bit) => {
                let is_new = self.first & bit == 0;
                self.first |= bit;
                is_new
            }
            None => self.rest.insert(index),
        }
    }
}
