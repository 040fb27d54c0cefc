//! The model: types with fields, referred to by index. Built-in types live as long as the process; a custom resource's
//! types live in a model of their own, on top of the built-in one.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

/// A text of the embedded data, or of a custom resource's schema.
pub type Text = Cow<'static, str>;

/// The index of a type in its [`Model`], or in the model's base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

/// Types, and the kinds that they are the types of.
#[derive(Debug, Default)]
pub struct Model {
    base: Option<&'static Model>,
    types: Vec<Type>,
    /// Types by `apiVersion` and kind.
    kinds: HashMap<Text, HashMap<Text, TypeId>>,
    names: HashMap<Text, TypeId>,
}

/// A type: an object with fields, unless its form says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// The package, such as `core.v1`; empty for a custom resource.
    pub package: Text,
    /// The name in its package, such as `Pod`.
    pub name: Text,
    /// The prefix of the name in OpenAPI, such as `io.k8s.api.core.v1`.
    pub prefix: Text,
    pub form: Form,
    /// The fields by their names in JSON, in the names' order. Fields of inline structs are among them.
    pub fields: Vec<Field>,
    /// The fields by their numbers in protobuf.
    pub wire: Vec<WireField>,
    /// The object has `apiVersion` and `kind` of its own.
    pub is_typed: bool,
    /// OpenAPI has no component of this name.
    pub is_hidden: bool,
    /// The kinds with this type. A type of every group version has only its first here.
    pub kinds: KindsOf,
    pub map_type: MapType,
    /// `x-kubernetes-unions`, as OpenAPI has them.
    pub unions: Option<Value>,
    /// Fields that the type does not name are kept as they are.
    pub keeps_unknown: bool,
    /// An object of the type has a default somewhere in it.
    pub has_defaults: bool,
    /// An object of the type has a field with a rule somewhere in it.
    pub has_rules: bool,
}

/// The group versions in which a type is a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KindsOf {
    #[default]
    None,
    /// One `apiVersion`.
    One(Text),
    /// Every `apiVersion`, as for `DeleteOptions`.
    Every,
}

/// The JSON form of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Object,
    /// Any JSON.
    Raw,
    /// A scalar with a [`Kind`] of its own, such as `Time`. The type exists for its documentation.
    Scalar,
    /// `apiextensions.v1.JSONSchemaPropsOrBool` and its like: a schema, or a value of another type.
    SchemaOr(SchemaOr),
}

/// The alternative to a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOr {
    Bool,
    /// A list of schemas.
    Schemas,
    Strings,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// The name in JSON.
    pub name: Text,
    /// The number in protobuf; 0 when the type has no such form.
    pub number: u32,
    /// The position in the declaration, which orders OpenAPI's lists.
    pub position: u16,
    pub shape: Shape,
    /// A pointer in Go: zero differs from absence.
    pub is_pointer: bool,
    /// Written even if it is zero: no `omitempty` in Go.
    pub is_always_written: bool,
    /// In OpenAPI's list of required fields.
    pub is_required: bool,
    pub patch: Option<Patch>,
    /// The type that declares the field, which has its documentation.
    pub declared_by: TypeId,
}

/// Strategic merge of a field: `patchStrategy` and `patchMergeKey`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    pub merges: bool,
    /// The patch's object replaces the object, where objects otherwise merge.
    pub replaces: bool,
    /// The patch lists the keys that stay.
    pub retains_keys: bool,
    /// The key by which elements merge; `None` for a list of scalars.
    pub key: Option<Text>,
}

/// The kind of a value with what is known about it besides.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub kind: Kind,
    pub map_type: MapType,
    pub rules: Option<Box<Rules>>,
}

/// The kind of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kind {
    /// Any JSON, without a type.
    #[default]
    Any,
    Bool,
    Int32,
    Int64,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    /// A time to the second.
    Time,
    /// A time to the microsecond.
    MicroTime,
    Quantity,
    IntOrString,
    /// A list of strings that protobuf wraps in a message.
    Strings,
    Raw(TypeId),
    SchemaOr(TypeId),
    Object(TypeId),
    List(Box<List>),
    Map(Box<Shape>),
}

/// A list of values of one shape.
#[derive(Clone, Debug)]
pub struct List {
    pub item: Shape,
    pub list_type: ListType,
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.item == other.item && self.list_type == other.list_type
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.map_type == other.map_type && self.rules == other.rules
    }
}

/// `x-kubernetes-list-type`: what server-side apply merges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Not said; the list counts as atomic.
    #[default]
    Unset,
    Atomic,
    Set,
    /// Elements are told apart by these fields.
    Map(Vec<Text>),
}

/// `x-kubernetes-map-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    #[default]
    Unset,
    Atomic,
    Granular,
}

/// Limits of a single value, and what it is when it is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The value of an absent field.
    pub default: Option<Value>,
    /// OpenAPI says `x-kubernetes-list-type: atomic` of a string of bytes, which is a list in Go.
    pub shows_list_type: bool,
    /// The values that the API documents (`+enum` in Go). Validation of some kinds knows more.
    pub enumeration: Vec<Value>,
    /// Null is a value of its own.
    pub is_nullable: bool,
    /// The field must be present and not empty.
    pub is_required: bool,
    pub is_immutable: bool,
    pub minimum: Option<i64>,
    pub maximum: Option<i64>,
    /// In characters.
    pub max_length: Option<usize>,
    pub max_bytes: Option<usize>,
    pub max_items: Option<usize>,
    /// The elements of a list differ.
    pub has_unique_items: bool,
    /// Upstream's name of a format, such as `k8s-short-name`.
    pub format: Option<Text>,
}

/// A field on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireField {
    pub number: u32,
    pub target: WireTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireTarget {
    /// The index in [`Type::fields`].
    Field(u16),
    /// A message whose fields are the object's own in JSON.
    Inline(TypeId),
}

impl Model {
    /// Returns an empty model whose types may refer to those of `base`.
    #[must_use]
    pub fn over(base: &'static Model) -> Self {
        Model { base: Some(base), ..Model::default() }
    }

    fn first(&self) -> usize {
        self.base.map_or(0, |base| base.types.len())
    }

    /// Returns the type. An index of another model panics, as an index of another list does.
    #[must_use]
    pub fn get(&self, id: TypeId) -> &Type {
        let index = id.0 as usize;
        match self.base {
            Some(base) if index < base.types.len() => &base.types[index],
            _ => &self.types[index - self.first()],
        }
    }

    /// Returns the type of a kind, such as `apps/v1` `Deployment`. Kinds of every group version, such as `DeleteOptions`,
    /// are found under any `api_version`.
    #[must_use]
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let own = self.kinds.get(api_version).and_then(|kinds| kinds.get(kind));
        let every = || self.kinds.get("*").and_then(|kinds| kinds.get(kind));
        own.or_else(every).copied().or_else(|| self.base.and_then(|base| base.kind(api_version, kind)))
    }

    /// Returns the type with a qualified name, such as `core.v1.Container`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied().or_else(|| self.base.and_then(|base| base.named(name)))
    }

    /// Returns the model's own types, without those of its base.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(index, ty)| (self.id(index), ty))
    }

    fn id(&self, index: usize) -> TypeId {
        TypeId(u32::try_from(self.first() + index).unwrap_or(u32::MAX))
    }

    /// Adds a type, and the kind that it is the type of.
    pub fn add(&mut self, ty: Type) -> TypeId {
        let id = self.id(self.types.len());
        let api_version = match &ty.kinds {
            KindsOf::None => None,
            KindsOf::One(api_version) => Some(api_version.clone()),
            KindsOf::Every => Some(Text::Borrowed("*")),
        };
        if let Some(api_version) = api_version {
            self.kinds.entry(api_version).or_default().insert(ty.name.clone(), id);
        }
        self.names.insert(Text::Owned(ty.qualified_name()), id);
        self.types.push(ty);
        id
    }

    /// Replaces a type of this model, whose name and kinds stay. A type that refers to itself is added empty first.
    pub fn set(&mut self, id: TypeId, ty: Type) {
        let first = self.first();
        if let Some(slot) = (id.0 as usize).checked_sub(first).and_then(|index| self.types.get_mut(index)) {
            *slot = ty;
        }
    }

    /// Marks the types that have a field for which `is_it` is true, and those that contain such a type.
    pub(crate) fn mark(
        &mut self,
        is_it: impl Fn(&Field) -> bool,
        is_marked: impl Fn(&Type) -> bool,
        set: impl Fn(&mut Type),
    ) {
        loop {
            let contains = |field: &Field| field.shape.kind.object().is_some_and(|inner| is_marked(self.get(inner)));
            let is_new = |ty: &Type| !is_marked(ty) && ty.fields.iter().any(|field| is_it(field) || contains(field));
            let found: Vec<usize> = (0..self.types.len()).filter(|index| is_new(&self.types[*index])).collect();
            if found.is_empty() {
                return;
            }
            found.into_iter().for_each(|index| set(&mut self.types[index]));
        }
    }

    /// Returns the field at a path of names below a type. Lists and maps are entered without a step of their own:
    /// `["spec", "containers", "image"]`.
    #[must_use]
    pub fn field_at<'m>(&'m self, ty: TypeId, path: &[&str]) -> Option<&'m Field> {
        let (name, rest) = path.split_first()?;
        let field = self.get(ty).field(name)?;
        if rest.is_empty() {
            return Some(field);
        }
        self.field_at(field.shape.kind.object()?, rest)
    }
}

impl Type {
    /// Returns the name with its package: `core.v1.Pod`.
    #[must_use]
    pub fn qualified_name(&self) -> String {
        if self.package.is_empty() { self.name.clone().into_owned() } else { format!("{}.{}", self.package, self.name) }
    }

    /// Returns the field with a name in JSON.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index(name).map(|index| &self.fields[index])
    }

    /// Returns the index of the field with a name in JSON.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()
    }
}

impl Kind {
    /// Returns the type of the object, or of the objects in the list or map.
    #[must_use]
    pub fn object(&self) -> Option<TypeId> {
        match self {
            Kind::Object(id) => Some(*id),
            Kind::List(list) => list.item.kind.object(),
            Kind::Map(value) => value.kind.object(),
            _ => None,
        }
    }
}

impl Field {
    /// Returns how the field's list merges in server-side apply; `Unset` for a field that is no list.
    #[must_use]
    pub fn list_type(&self) -> &ListType {
        match &self.shape.kind {
            Kind::List(list) => &list.list_type,
            _ => &ListType::Unset,
        }
    }

    /// Returns the default of an absent field.
    #[must_use]
    pub fn default(&self) -> Option<&Value> {
        self.shape.rules.as_ref().and_then(|rules| rules.default.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::builtin;

    fn field(name: &'static str, kind: Kind, declared_by: TypeId) -> Field {
        Field {
            name: name.into(),
            number: 0,
            position: 0,
            shape: Shape { kind, ..Shape::default() },
            is_pointer: true,
            is_always_written: false,
            is_required: false,
            patch: None,
            declared_by,
        }
    }

    /// A custom resource's types stand in a model of their own and refer to built-in ones and to themselves.
    #[test]
    fn types_can_be_built_at_run_time() {
        let mut model = Model::over(builtin());
        let name = "Widget".to_owned();
        let kinds = KindsOf::One("example.com/v1".into());
        let id = model.add(Type { name: name.clone().into(), kinds: kinds.clone(), ..Type::default() });
        let metadata = model.named("meta.v1.ObjectMeta").expect("a built-in type");
        let inner = List { item: Shape { kind: Kind::Object(id), ..Shape::default() }, list_type: ListType::Atomic };
        let mut size = field("size", Kind::IntOrString, id);
        size.shape.rules = Some(Box::new(Rules { is_nullable: true, default: Some(json!(3)), ..Rules::default() }));
        let fields =
            vec![field("metadata", Kind::Object(metadata), id), field("parts", Kind::List(Box::new(inner)), id), size];
        model.set(id, Type { name: name.into(), kinds, fields, keeps_unknown: true, ..Type::default() });
        model.mark(crate::defaults::is_defaulted, |ty| ty.has_defaults, |ty| ty.has_defaults = true);

        assert_eq!(model.kind("example.com/v1", "Widget"), Some(id));
        assert_eq!(builtin().kind("example.com/v1", "Widget"), None);
        assert_eq!(model.kind("v1", "Pod"), builtin().kind("v1", "Pod"));
        assert!(model.field_at(id, &["parts", "metadata", "labels"]).is_some());
        let object = json!({
            "metadata": {"name": "a", "colour": "red"}, "anything": {"goes": null},
            "parts": [{"size": null}, {"size": "10%", "parts": [{}]}],
        });
        let decoded = crate::decode::value(&model, id, object).expect("a widget");
        assert_eq!(
            decoded.strict.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["unknown field \"metadata.colour\""]
        );
        let mut object = decoded.object;
        let expected = json!({
            "metadata": {"name": "a"}, "anything": {"goes": null},
            "parts": [{"size": null}, {"size": "10%", "parts": [{}]}],
        });
        assert_eq!(object, expected);
        crate::defaults::apply(&model, id, &mut object);
        assert_eq!((&object["size"], &object["parts"][1]["parts"][0]["size"]), (&json!(3), &json!(3)));
        let error = crate::decode::value(&model, id, json!({"parts": [{"size": true}]})).expect_err("neither");
        assert_eq!(error.to_string(), "parts[0].size: invalid type: boolean `true`, expected an integer or a string");
    }
}
