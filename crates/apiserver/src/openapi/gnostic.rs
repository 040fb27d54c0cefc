//! The document of v2 in Protocol Buffers: the messages of `openapi.v2` of github.com/google/gnostic.
//!
//! A message is a list of fields, each with the field's name in JSON. Fields of the document that no table has would be
//! lost, so a test encodes everything that is served and refuses that.

use quorate_schema::protobuf::wire::Writer;
use serde_json::{Map, Value};

/// A value of a field in JSON, and its form in the message.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    /// A list of strings, each a value of the field.
    Texts,
    /// A message.
    One(&'static [Field]),
    /// A list of schemas.
    Schemas,
    /// An object whose entries are schemas.
    Properties,
    /// An object whose entries are messages with a name (1) and a value (2), in a message whose field has this number.
    Named(u32, Item),
    /// A string, or a list of strings, in a message (`TypeItem`).
    Type,
    /// One schema, or a list of them, in a message (`ItemsItem`).
    Items,
    /// A schema or a boolean (`AdditionalPropertiesItem`).
    Additional,
    /// A list of parameters.
    Parameters,
    /// A schema of a response (`SchemaItem`).
    Answer,
    /// A list of objects with lists of strings (`SecurityRequirement`).
    Security,
}

/// The value of a named entry.
#[derive(Clone, Copy)]
enum Item {
    Message(&'static [Field]),
    /// A message that is the first alternative of a `oneof`.
    First(&'static [Field]),
    /// As [`Item::First`], for the second alternative.
    Second(&'static [Field]),
}

struct Field(&'static str, u32, Form);

/// The number of the list of extensions, whose names start with `x-`. It is written under the name `x-`.
const EXTENSIONS: &str = "x-";

static DOCUMENT: &[Field] = &[
    Field("swagger", 1, Form::Text),
    Field("info", 2, Form::One(&[Field("title", 1, Form::Text), Field("version", 2, Form::Text)])),
    Field("paths", 8, Form::Named(2, Item::Message(PATH_ITEM))),
    Field("definitions", 9, Form::Named(1, Item::Message(SCHEMA))),
    Field("security", 12, Form::Security),
    Field("securityDefinitions", 13, Form::Named(1, Item::Second(API_KEY))),
];
static API_KEY: &[Field] = &[
    Field("type", 1, Form::Text),
    Field("name", 2, Form::Text),
    Field("in", 3, Form::Text),
    Field("description", 4, Form::Text),
];
static PATH_ITEM: &[Field] = &[
    Field("get", 2, Form::One(OPERATION)),
    Field("put", 3, Form::One(OPERATION)),
    Field("post", 4, Form::One(OPERATION)),
    Field("delete", 5, Form::One(OPERATION)),
    Field("options", 6, Form::One(OPERATION)),
    Field("head", 7, Form::One(OPERATION)),
    Field("patch", 8, Form::One(OPERATION)),
    Field("parameters", 9, Form::Parameters),
];
static OPERATION: &[Field] = &[
    Field("tags", 1, Form::Texts),
    Field("description", 3, Form::Text),
    Field("operationId", 5, Form::Text),
    Field("produces", 6, Form::Texts),
    Field("consumes", 7, Form::Texts),
    Field("parameters", 8, Form::Parameters),
    Field("responses", 9, Form::Named(1, Item::First(RESPONSE))),
    Field("schemes", 10, Form::Texts),
    Field(EXTENSIONS, 13, Form::Text),
];
static RESPONSE: &[Field] = &[Field("description", 1, Form::Text), Field("schema", 2, Form::Answer)];
static BODY: &[Field] = &[
    Field("description", 1, Form::Text),
    Field("name", 2, Form::Text),
    Field("in", 3, Form::Text),
    Field("required", 4, Form::Flag),
    Field("schema", 5, Form::One(SCHEMA)),
];
static QUERY: &[Field] = &[
    Field("required", 1, Form::Flag),
    Field("in", 2, Form::Text),
    Field("description", 3, Form::Text),
    Field("name", 4, Form::Text),
    Field("type", 6, Form::Text),
    Field("uniqueItems", 20, Form::Flag),
];
static PATH: &[Field] = &[
    Field("required", 1, Form::Flag),
    Field("in", 2, Form::Text),
    Field("description", 3, Form::Text),
    Field("name", 4, Form::Text),
    Field("type", 5, Form::Text),
    Field("uniqueItems", 19, Form::Flag),
];
static SCHEMA: &[Field] = &[
    Field("$ref", 1, Form::Text),
    Field("format", 2, Form::Text),
    Field("description", 4, Form::Text),
    Field("required", 19, Form::Texts),
    Field("additionalProperties", 21, Form::Additional),
    Field("type", 22, Form::Type),
    Field("items", 23, Form::Items),
    Field("allOf", 24, Form::Schemas),
    Field("properties", 25, Form::Properties),
    Field(EXTENSIONS, 31, Form::Text),
];

/// Encodes a document.
///
/// # Errors
/// The name of a field that has no place in the messages.
pub(super) fn encode(document: &Value) -> Result<Vec<u8>, String> {
    let mut out = Writer::default();
    message(DOCUMENT, document, &mut out)?;
    Ok(out.into())
}

fn message(fields: &[Field], value: &Value, out: &mut Writer) -> Result<(), String> {
    let Some(object) = value.as_object() else { return Err(format!("{value} where an object belongs")) };
    for (name, value) in object {
        let is_extension = name.starts_with(EXTENSIONS);
        let place = if is_extension { EXTENSIONS } else { name.as_str() };
        let field = fields.iter().find(|field| field.0 == place).ok_or_else(|| name.clone())?;
        if is_extension {
            // The value is YAML, and JSON is valid YAML.
            let any = Writer::default().bytes(2, value.to_string());
            out.put_bytes(field.1, Writer::default().bytes(1, name).bytes(2, any).as_ref());
        } else {
            put(field.1, field.2, value, out).map_err(|inner| format!("{name}: {inner}"))?;
        }
    }
    Ok(())
}

fn put(number: u32, form: Form, value: &Value, out: &mut Writer) -> Result<(), String> {
    match form {
        Form::Text => out.put_bytes(number, text(value)?.as_bytes()),
        Form::Flag => out.put_varint(number, u64::from(value == &Value::Bool(true))),
        Form::Texts => {
            for item in list(value)? {
                out.put_bytes(number, text(item)?.as_bytes());
            }
        }
        Form::One(fields) => nested(number, out, |out| message(fields, value, out))?,
        Form::Schemas => {
            for item in list(value)? {
                nested(number, out, |out| message(SCHEMA, item, out))?;
            }
        }
        Form::Properties => put(number, Form::Named(1, Item::Message(SCHEMA)), value, out)?,
        Form::Named(entry, item) => {
            let object: &Map<String, Value> = value.as_object().ok_or("an object belongs here")?;
            nested(number, out, |out| {
                for (name, value) in object {
                    nested(entry, out, |out| {
                        out.put_bytes(1, name.as_bytes());
                        nested(2, out, |out| named(item, value, out))
                    })?;
                }
                Ok(())
            })?;
        }
        Form::Type => nested(number, out, |out| match value {
            Value::Array(_) => put(1, Form::Texts, value, out),
            _ => put(1, Form::Text, value, out),
        })?,
        Form::Items => nested(number, out, |out| match value {
            Value::Array(_) => put(1, Form::Schemas, value, out),
            _ => put(1, Form::One(SCHEMA), value, out),
        })?,
        Form::Additional => nested(number, out, |out| match value {
            Value::Bool(_) => put(2, Form::Flag, value, out),
            _ => put(1, Form::One(SCHEMA), value, out),
        })?,
        Form::Answer => nested(number, out, |out| put(1, Form::One(SCHEMA), value, out))?,
        Form::Parameters => {
            for item in list(value)? {
                nested(number, out, |out| nested(1, out, |out| parameter(item, out)))?;
            }
        }
        Form::Security => {
            for requirement in list(value)? {
                let object = requirement.as_object().ok_or("an object belongs here")?;
                nested(number, out, |out| {
                    for (name, scopes) in object {
                        nested(1, out, |out| {
                            out.put_bytes(1, name.as_bytes());
                            nested(2, out, |out| put(1, Form::Texts, scopes, out))
                        })?;
                    }
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

fn named(item: Item, value: &Value, out: &mut Writer) -> Result<(), String> {
    match item {
        Item::Message(fields) => message(fields, value, out),
        Item::First(fields) => put(1, Form::One(fields), value, out),
        Item::Second(fields) => put(2, Form::One(fields), value, out),
    }
}

/// Writes a parameter: the body, or one outside of the body, in the query or in the path.
fn parameter(parameter: &Value, out: &mut Writer) -> Result<(), String> {
    match parameter["in"].as_str() {
        Some("body") => put(1, Form::One(BODY), parameter, out),
        Some("query") => nested(2, out, |out| put(3, Form::One(QUERY), parameter, out)),
        Some("path") => nested(2, out, |out| put(4, Form::One(PATH), parameter, out)),
        other => Err(format!("a parameter in {other:?}")),
    }
}

fn nested(number: u32, out: &mut Writer, write: impl FnOnce(&mut Writer) -> Result<(), String>) -> Result<(), String> {
    let begun = out.begin(number);
    write(out)?;
    out.end(begun);
    Ok(())
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} where a string belongs"))
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{value} where a list belongs"))
}
