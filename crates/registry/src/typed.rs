//! Reads a JSON value as a Kubernetes type. Quantities are checked and brought into canonical form on the way, because
//! Kubernetes parses them while it decodes an object.

use quorate_api::Quantity;
use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde_json::{Error, Number, Value};

/// The name of the quantity type in serde.
const QUANTITY: &str = "Quantity";

/// Decodes `object` as a `T`.
///
/// # Errors
/// When a value has the wrong type, or is a malformed quantity.
pub fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Error> {
    T::deserialize(Typed(object))
}

#[derive(Clone, Copy)]
struct Typed<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, Error> for Typed<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Where the type cannot hold a quantity, the value decodes as any other.
macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.0.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Typed<'de> {
    type Error = Error;

    forward! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name == QUANTITY {
            let canonical = quantity(self.0)?.to_string();
            return visitor.visit_newtype_struct(StringDeserializer::new(canonical));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Typed))),
            other => other.deserialize_seq(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.as_str(), Typed(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            other => other.deserialize_map(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(_) => self.deserialize_map(visitor),
            other => other.deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }
}

/// Reads a quantity. A number counts as its text, and null as zero.
fn quantity(value: &Value) -> Result<Quantity, Error> {
    let text = match value {
        Value::Null => return Ok(Quantity::ZERO),
        Value::String(text) => text.clone(),
        Value::Number(number) => notation(number),
        // The text of any other value is a malformed quantity.
        other => other.to_string(),
    };
    Quantity::parse(&text).map_err(Error::custom)
}

/// Returns a number's notation. A JSON parser does not distinguish `1e3` from `1000.0`, so an integral float is taken
/// for an exponent, the likelier notation.
fn notation(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:e}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::json;

    use super::*;

    fn cpu(cpu: &Value) -> Result<Value, Error> {
        let pod =
            json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}});
        let pod: Pod = read(&pod)?;
        Ok(json!(pod)["spec"]["containers"][0]["resources"]["limits"]["cpu"].take())
    }

    #[test]
    fn quantities_decode_to_their_canonical_form() {
        for (given, canonical) in [
            (json!("1000m"), "1"),
            (json!(2), "2"),
            (json!(0.25), "250m"),
            (json!("1e3"), "1e3"),
            (serde_json::from_str("1e3").expect("a number"), "1e3"),
            (json!(1000), "1k"),
            (json!("100u"), "100u"),
            (json!(null), "0"),
        ] {
            assert_eq!(cpu(&given).expect("a quantity"), canonical, "{given}");
        }
        let node: Node = read(&json!({"metadata": {}, "status": {"capacity": {"memory": "1024Ki"}}})).expect("a node");
        assert_eq!(json!(node)["status"]["capacity"]["memory"], "1Mi");
    }

    #[test]
    fn malformed_quantities_do_not_decode() {
        for given in [
            json!("1Ki5"),
            json!("1 Gi"),
            json!("1KI"),
            json!("1gb"),
            json!(""),
            json!("Gi"),
            json!("--1"),
            json!("1e"),
            json!("0x10"),
            json!("1,5Gi"),
            json!(true),
            json!({"a": 1}),
            json!([1]),
        ] {
            let error = cpu(&given).expect_err("no quantity").to_string();
            assert!(error.contains("quantit"), "{given}: {error}");
        }
    }
}
