//! Combines OpenAPI, protobuf and the facts of the Go types into the data of `crates/schema`, one file for each package
//! and one with its documentation. The form of a line is described in `crates/schema/src/data`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Files;
use crate::go::{Facts, GoField, Package};
use crate::openapi::Components;
use crate::proto::{self, Messages, ProtoField, ProtoShape};

/// The facts that are checked in.
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/facts");
/// Protobuf definitions that the reference data lacks.
const PROTOS: [&str; 3] = ["apiextensions.v1.proto", "apiregistration.v1.proto", "extra.proto"];

/// Messages that are a scalar in JSON, and their names as a kind of value.
const SCALARS: &[(&str, &str)] = &[
    ("meta.v1.Time", "Time"),
    ("meta.v1.MicroTime", "MicroTime"),
    ("resource.Quantity", "Quantity"),
    ("intstr.IntOrString", "IntOrString"),
];
/// Messages that wrap a list of strings, which is the list in JSON.
const STRINGS: &[&str] =
    &["authentication.v1.ExtraValue", "authorization.v1.ExtraValue", "certificates.v1.ExtraValue", "meta.v1.Verbs"];
/// Messages with a JSON form of their own, and the mark of that form.
const FORMS: &[(&str, &str)] = &[
    ("apiextensions.v1.JSON", "raw"),
    ("apiextensions.v1.JSONSchemaPropsOrArray", "or=array"),
    ("apiextensions.v1.JSONSchemaPropsOrBool", "or=bool"),
    ("apiextensions.v1.JSONSchemaPropsOrStringArray", "or=strings"),
    ("meta.v1.FieldsV1", "raw"),
    ("runtime.RawExtension", "raw"),
];
/// Messages that no value of the API has.
const UNUSED: &[&str] =
    &["meta.v1.Duration", "meta.v1.Timestamp", "runtime.TypeMeta", "runtime.Unknown", "resource.QuantityValue"];
/// Packages without Go facts: each type in them has a form of its own.
const BARE_PACKAGES: &[&str] = &["intstr", "resource", "runtime"];
/// Kinds of `meta.v1` that every group and version knows (`metav1.AddToGroupVersion`).
const EVERYWHERE: &[&str] =
    &["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"];
/// Kinds of `meta.v1` that belong to the group `meta.k8s.io`; the others are served under `v1`.
const META_GROUP: &[&str] = &["PartialObjectMetadata", "PartialObjectMetadataList", "Table"];

/// Generates the data from the reference data in `from`.
///
/// # Errors
/// When the sources cannot be read, or contradict each other.
pub fn generate(from: &Path) -> Result<Files> {
    let mut messages = Messages::new();
    let mut protos = Vec::new();
    collect(&from.join("proto"), &mut protos)?;
    for path in protos {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        proto::parse(&text, &mut messages).with_context(|| path.display().to_string())?;
    }
    let facts = |name: &str| fs::read_to_string(Path::new(FACTS).join(name)).with_context(|| name.to_owned());
    for name in PROTOS {
        proto::parse(&facts(name)?, &mut messages).with_context(|| name.to_owned())?;
    }
    let generator = Generator {
        messages,
        components: Components::read(&from.join("openapi-v3"))?,
        facts: Facts::parse(&facts("go.txt")?)?,
    };
    let mut files = Files::new();
    let mut problems = Vec::new();
    for package in &generator.facts.packages {
        problems.extend(generator.package(package, &mut files));
    }
    for name in BARE_PACKAGES {
        let package = Package { name: (*name).to_owned(), ..Package::default() };
        problems.extend(generator.package(&package, &mut files));
    }
    ensure!(problems.is_empty(), "the sources contradict each other:\n{}", problems.join("\n"));
    Ok(files)
}

/// Collects the files below `folder`, in order.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        entries.push(entry?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

struct Generator {
    messages: Messages,
    components: Components,
    facts: Facts,
}

/// The OpenAPI schema of a type, or of a type that includes its fields.
struct Documented<'a> {
    schema: Option<&'a Value>,
}

impl Generator {
    /// Writes the files of a package, and returns the contradictions in it.
    fn package(&self, package: &Package, files: &mut Files) -> Vec<String> {
        let mut problems = Vec::new();
        let name = &package.name;
        let prefix = self.components.prefixes.get(name).map_or("-", String::as_str);
        let api_version = if name == "meta.v1" { "v1" } else { &package.api_version };
        let api_version = if api_version.is_empty() || name == "version" { "-" } else { api_version };
        let mut text = format!(
            "# Kubernetes v1.36. Written by `cargo run -p xtask -- schema`.\npackage {name} {prefix} {api_version}\n"
        );
        let mut docs = String::new();
        for (enumeration, values) in &package.enums {
            text.push_str(&format!("enum {enumeration} {values}\n"));
        }
        let start = format!("{name}.");
        for (message, fields) in &self.messages {
            let Some(kind) = message.strip_prefix(&start).filter(|kind| !kind.contains('.')) else { continue };
            if UNUSED.contains(&message.as_str()) || STRINGS.contains(&message.as_str()) {
                continue;
            }
            if let Err(error) = self.message(package, kind, fields, &mut text, &mut docs) {
                problems.push(format!("{message}: {error:#}"));
            }
        }
        files.insert(format!("{name}.txt"), text);
        files.insert(format!("docs/{name}.txt"), docs);
        problems
    }

    fn message(
        &self,
        package: &Package,
        kind: &str,
        fields: &[ProtoField],
        text: &mut String,
        docs: &mut String,
    ) -> Result<()> {
        let name = format!("{}.{kind}", package.name);
        let own = self.components.schemas.get(&name);
        let documented = Documented { schema: own.or_else(|| self.including(&name)) };
        let facts = package.structs.get(kind).map(Vec::as_slice).unwrap_or_default();
        let mut marks = Vec::new();
        let is_typed = facts.iter().any(|fact| fact.value("type") == Some("meta.v1.TypeMeta"));
        if is_typed {
            marks.push("typed".to_owned());
        }
        if EVERYWHERE.contains(&kind) && package.name == "meta.v1" {
            marks.push("kind=*".to_owned());
        } else if META_GROUP.contains(&kind) && package.name == "meta.v1" {
            marks.push("kind=meta.k8s.io/v1".to_owned());
        } else if is_typed {
            marks.push("kind".to_owned());
        }
        match own {
            None => marks.push("hidden".to_owned()),
            Some(schema) => {
                if let Some(map) = schema["x-kubernetes-map-type"].as_str() {
                    marks.push(format!("map={map}"));
                }
                if let Some(unions) = schema.get("x-kubernetes-unions") {
                    marks.push(format!("unions={unions}"));
                }
                doc(docs, kind, schema);
            }
        }
        if SCALARS.iter().any(|(scalar, _)| *scalar == name) {
            marks.push("scalar".to_owned());
        }
        let form = FORMS.iter().find(|(message, _)| *message == name).map(|(_, form)| *form);
        marks.extend(form.map(str::to_owned));
        text.push('\n');
        text.push_str(&line(&[kind], &marks));
        if form.is_some() || marks.iter().any(|mark| mark == "scalar") {
            return Ok(());
        }
        let mut open: BTreeSet<&str> = BTreeSet::new();
        if let Some(properties) = own.and_then(|schema| schema["properties"].as_object()) {
            open.extend(properties.keys().map(String::as_str));
        }
        if is_typed {
            open.remove("apiVersion");
            open.remove("kind");
        }
        for fact in facts {
            let field = match fields
                .iter()
                .find(|field| if fact.number == 0 { field.name == fact.json } else { field.number == fact.number })
            {
                Some(field) => field,
                None if fact.value("type") == Some("meta.v1.TypeMeta") => continue,
                None => bail!("no protobuf field for {} = {}", fact.json, fact.number),
            };
            for name in self.field(package, field, fact, &documented, text)? {
                open.remove(name.as_str());
            }
            if fact.json != "_" {
                let field = format!("{kind}.{}", fact.json);
                let option = self.components.options.get(&name).and_then(|options| options.get(&fact.json));
                let text = documented.property(&fact.json)["description"].as_str();
                if let Some(text) = text.or(option.map(String::as_str)) {
                    describe(docs, &field, text);
                }
            }
        }
        ensure!(facts.len() >= fields.len(), "protobuf has more fields than the Go type");
        ensure!(open.is_empty(), "OpenAPI has more fields than the Go type: {open:?}");
        Ok(())
    }

    /// Returns the schema of a type that includes the fields of the type `name`.
    fn including(&self, name: &str) -> Option<&Value> {
        let mut found = Vec::new();
        for package in &self.facts.packages {
            for (kind, fields) in &package.structs {
                if fields.iter().any(|field| field.value("type") == Some(name)) {
                    let outer = format!("{}.{kind}", package.name);
                    found.extend(self.components.schemas.get(&outer).or_else(|| self.including(&outer)));
                }
            }
        }
        found.into_iter().next()
    }

    /// Writes a field, and returns the names that it has in OpenAPI.
    fn field(
        &self,
        package: &Package,
        field: &ProtoField,
        fact: &GoField,
        documented: &Documented<'_>,
        text: &mut String,
    ) -> Result<Vec<String>> {
        let number = fact.number.to_string();
        if fact.json == "_" {
            ensure!(field.shape == ProtoShape::One && !fact.has("pointer"), "{} cannot be inline", field.name);
            let type_name = short(&field.type_name, &package.name);
            text.push_str(&line(&["  _", &number, type_name], &["inline".to_owned()]));
            return Ok(self.flattened(&field.type_name));
        }
        let schema = documented.property(&fact.json);
        ensure!(documented.schema.is_none() || !schema.is_null(), "OpenAPI has no {}", fact.json);
        let value = value_type(&field.type_name, &package.name);
        let declared = match field.shape {
            ProtoShape::One => value,
            ProtoShape::List => format!("[{value}]"),
            ProtoShape::Map => format!("{{{value}}}"),
        };
        let mut marks = Vec::new();
        if documented.requires(&fact.json) {
            marks.push("required".to_owned());
        }
        marks.extend(["always", "pointer"].into_iter().filter(|flag| fact.has(flag)).map(str::to_owned));
        marks.extend(list_marks(schema)?);
        if let Some(name) = fact.value("enum") {
            marks.push(format!("enum={}", short(name, &package.name)));
        }
        marks.extend(default_mark(schema, fact)?);
        marks.extend(fact.flags.iter().filter(|flag| flag.starts_with("rule:")).cloned());
        text.push_str(&line(&[&format!("  {}", fact.json), &number, &declared], &marks));
        Ok(vec![fact.json.clone()])
    }

    /// Returns the names in JSON of a message's fields.
    fn flattened(&self, message: &str) -> Vec<String> {
        let Some((package, kind)) = message.rsplit_once('.') else { return Vec::new() };
        let package = self.facts.packages.iter().find(|known| known.name == package);
        let fields = package.and_then(|package| package.structs.get(kind)).map(Vec::as_slice).unwrap_or_default();
        let names = fields.iter().map(|field| match (field.json.as_str(), field.value("type")) {
            ("_", Some(inner)) => self.flattened(inner),
            (name, _) => vec![name.to_owned()],
        });
        names.flatten().collect()
    }
}

impl<'a> Documented<'a> {
    fn property(&self, name: &str) -> &'a Value {
        self.schema.map_or(&Value::Null, |schema| &schema["properties"][name])
    }

    fn requires(&self, name: &str) -> bool {
        let required = self.schema.and_then(|schema| schema["required"].as_array());
        required.is_some_and(|names| names.iter().any(|known| known == name))
    }
}

/// Returns a type's name as a field's line has it.
fn value_type(name: &str, package: &str) -> String {
    if let Some((_, scalar)) = SCALARS.iter().find(|(message, _)| *message == name) {
        return (*scalar).to_owned();
    }
    if STRINGS.contains(&name) {
        return "Strings".to_owned();
    }
    short(name, package).to_owned()
}

/// Drops the package of a name of the same package.
fn short<'a>(name: &'a str, package: &str) -> &'a str {
    name.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

fn list_marks(schema: &Value) -> Result<Vec<String>> {
    let mut marks = Vec::new();
    match schema["x-kubernetes-list-type"].as_str() {
        None => {}
        Some("map") => {
            let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            marks.push(format!("list=map({})", keys.join(",")));
        }
        Some(list @ ("atomic" | "set")) => marks.push(format!("list={list}")),
        Some(other) => bail!("unknown list type {other}"),
    }
    if let Some(map) = schema["x-kubernetes-map-type"].as_str() {
        marks.push(format!("map={map}"));
    }
    let strategy = schema["x-kubernetes-patch-strategy"].as_str();
    match (strategy, schema["x-kubernetes-patch-merge-key"].as_str()) {
        (None, None) => {}
        (Some(strategy), None) => marks.push(format!("patch={strategy}")),
        (Some(strategy), Some(key)) => marks.push(format!("patch={strategy}({key})")),
        (None, Some(key)) => bail!("merge key {key} without a strategy"),
    }
    Ok(marks)
}

/// Returns the mark of a declared default. A default that names a constant is taken from OpenAPI.
///
/// OpenAPI shows other defaults too, which follow from the Go type: the schema's renderer derives them.
fn default_mark(schema: &Value, fact: &GoField) -> Result<Option<String>> {
    Ok(match fact.value("default") {
        None => None,
        Some(constant) if constant.starts_with("ref(") => {
            let value = schema.get("default").with_context(|| format!("OpenAPI has no default for {constant}"))?;
            Some(format!("default={value}"))
        }
        Some(value) => Some(format!("default={value}")),
    })
}

fn line(words: &[&str], marks: &[String]) -> String {
    let words = words.iter().copied().chain(marks.iter().map(String::as_str));
    format!("{}\n", words.collect::<Vec<_>>().join(" "))
}

/// Writes a description on one line.
fn doc(docs: &mut String, name: &str, schema: &Value) {
    if let Some(text) = schema["description"].as_str() {
        describe(docs, name, text);
    }
}

fn describe(docs: &mut String, name: &str, text: &str) {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
    docs.push_str(&format!("{name} {text}\n"));
}
