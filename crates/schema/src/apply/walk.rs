//! The place of a value in its type, and how server-side apply sees the value there.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::model::{Field, Form, Kind, ListType, MapType, Model, Shape, Text, TypeId};

/// An absent object whose fields can be set one by one.
pub(super) static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'m> {
    Object(TypeId),
    Shape(&'m Shape),
    /// A value without a type. Objects in it are maps, and lists in it are atomic.
    Untyped,
}

/// How server-side apply sees a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'m> {
    /// One manager has all of it: a scalar, or an atomic list or map.
    Leaf,
    /// An object; a field that the type does not have has no type.
    Struct(TypeId),
    /// A map whose entries have managers of their own.
    Map(Place<'m>),
    /// A list of scalars that occur once.
    Set,
    /// A list of objects that are told apart by keys.
    Keyed(&'m [Text], Place<'m>),
}

impl<'m> Place<'m> {
    pub fn view(self, model: &'m Model) -> View<'m> {
        match self {
            Place::Untyped => View::Map(Place::Untyped),
            Place::Object(id) => object(model, id, MapType::Unset),
            Place::Shape(shape) => match &shape.kind {
                Kind::Object(id) => object(model, *id, shape.map_type),
                Kind::Map(_) if shape.map_type == MapType::Atomic => View::Leaf,
                Kind::Map(value) => View::Map(Place::Shape(value)),
                Kind::List(list) => match &list.list_type {
                    ListType::Set => View::Set,
                    ListType::Map(keys) => View::Keyed(keys, Place::Shape(&list.item)),
                    ListType::Unset | ListType::Atomic => View::Leaf,
                },
                Kind::Any | Kind::Raw(_) | Kind::SchemaOr(_) if shape.map_type != MapType::Atomic => {
                    View::Map(Place::Untyped)
                }
                _ => View::Leaf,
            },
        }
    }

    /// Returns the field of the place's type.
    pub fn field(self, model: &'m Model, name: &str) -> Option<&'m Field> {
        match self.view(model) {
            View::Struct(id) => model.get(id).field(name),
            _ => None,
        }
    }
}

fn object<'m>(model: &'m Model, id: TypeId, map_type: MapType) -> View<'m> {
    let ty = model.get(id);
    match ty.form {
        Form::Object if ty.map_type == MapType::Atomic || map_type == MapType::Atomic => View::Leaf,
        Form::Object => View::Struct(id),
        Form::Raw | Form::SchemaOr(_) => View::Map(Place::Untyped),
        Form::Scalar => View::Leaf,
    }
}

impl<'m> View<'m> {
    /// Returns the place of an object's or a map's member, and whether the type declares it.
    pub fn member(self, model: &'m Model, name: &str) -> (Place<'m>, bool) {
        match self {
            View::Struct(id) => match model.get(id).field(name) {
                Some(field) => (Place::Shape(&field.shape), true),
                None => (Place::Untyped, matches!(name, "apiVersion" | "kind") && model.get(id).is_typed),
            },
            View::Map(value) => (value, false),
            View::Leaf | View::Set | View::Keyed(..) => (Place::Untyped, false),
        }
    }
}
