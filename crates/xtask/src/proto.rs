//! Reads the parts of protobuf definitions that Kubernetes uses: messages of optional, repeated and map fields.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::package_name;

/// Messages by their qualified short name, such as `core.v1.Pod`.
pub type Messages = BTreeMap<String, Vec<ProtoField>>;

/// A field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtoField {
    pub name: String,
    pub number: u32,
    pub shape: ProtoShape,
    /// A scalar, or a message's qualified short name.
    pub type_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoShape {
    One,
    List,
    /// A map from strings.
    Map,
}

const SCALARS: &[&str] = &["bool", "bytes", "double", "int32", "int64", "string", "any"];

/// Parses one file, adds its messages, and returns its package's short name.
///
/// # Errors
/// When the file has something that Kubernetes' definitions do not use.
pub fn parse(text: &str, messages: &mut Messages) -> Result<String> {
    let mut package = String::new();
    let mut open: Option<(String, Vec<ProtoField>)> = None;
    let mut in_comment = false;
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default().trim();
        in_comment |= code.starts_with("/*");
        if in_comment {
            in_comment = !code.ends_with("*/");
            continue;
        }
        if let Some(name) = code.strip_prefix("package ") {
            package = package_name(name.trim_end_matches(';'));
        } else if let Some(name) = code.strip_prefix("message ") {
            open = Some((format!("{package}.{}", name.trim_end_matches('{').trim()), Vec::new()));
        } else if code == "}" {
            let (name, mut fields) = open.take().context("a brace without a message")?;
            fields.sort_by_key(|field: &ProtoField| field.number);
            messages.insert(name, fields);
        } else if let Some((_, fields)) = &mut open
            && !code.is_empty()
        {
            fields.push(field(code, &package).with_context(|| code.to_owned())?);
        }
    }
    Ok(package)
}

fn field(code: &str, package: &str) -> Result<ProtoField> {
    let (left, right) = code.split_once('=').context("no number")?;
    let number = right.split(['[', ';']).next().unwrap_or_default().trim().parse()?;
    let (declared, name) = left.trim().rsplit_once(' ').context("no name")?;
    let (shape, type_name) = if let Some(inner) = declared.strip_prefix("map<string,") {
        (ProtoShape::Map, inner.trim_end_matches('>').trim())
    } else if let Some(inner) = declared.strip_prefix("repeated ") {
        (ProtoShape::List, inner)
    } else if let Some(inner) = declared.strip_prefix("optional ") {
        (ProtoShape::One, inner)
    } else {
        bail!("neither optional nor repeated nor a map");
    };
    let type_name = match type_name.strip_prefix('.') {
        _ if SCALARS.contains(&type_name) => type_name.to_owned(),
        Some(absolute) => {
            let (package, name) = absolute.rsplit_once('.').context("no package")?;
            format!("{}.{name}", package_name(package))
        }
        None => format!("{package}.{type_name}"),
    };
    Ok(ProtoField { name: name.to_owned(), number, shape, type_name })
}
