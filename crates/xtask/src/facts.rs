//! Extracts facts from Kubernetes' Go sources, in the text that [`crate::go`] reads: per field its name in JSON, its
//! protobuf number, whether it is a pointer, whether zero is written, its enum, its default, and its validation tags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{Files, package_name};

/// Go packages with the types of the stable groups, and the repositories that hold them.
const PACKAGES: &[(&str, &str)] = &[
    ("k8s.io/api/admission/v1", "api/admission/v1"),
    ("k8s.io/api/admissionregistration/v1", "api/admissionregistration/v1"),
    ("k8s.io/api/apidiscovery/v2", "api/apidiscovery/v2"),
    ("k8s.io/api/apps/v1", "api/apps/v1"),
    ("k8s.io/api/authentication/v1", "api/authentication/v1"),
    ("k8s.io/api/authorization/v1", "api/authorization/v1"),
    ("k8s.io/api/autoscaling/v1", "api/autoscaling/v1"),
    ("k8s.io/api/autoscaling/v2", "api/autoscaling/v2"),
    ("k8s.io/api/batch/v1", "api/batch/v1"),
    ("k8s.io/api/certificates/v1", "api/certificates/v1"),
    ("k8s.io/api/coordination/v1", "api/coordination/v1"),
    ("k8s.io/api/core/v1", "api/core/v1"),
    ("k8s.io/api/discovery/v1", "api/discovery/v1"),
    ("k8s.io/api/events/v1", "api/events/v1"),
    ("k8s.io/api/flowcontrol/v1", "api/flowcontrol/v1"),
    ("k8s.io/api/networking/v1", "api/networking/v1"),
    ("k8s.io/api/node/v1", "api/node/v1"),
    ("k8s.io/api/policy/v1", "api/policy/v1"),
    ("k8s.io/api/rbac/v1", "api/rbac/v1"),
    ("k8s.io/api/resource/v1", "api/resource/v1"),
    ("k8s.io/api/scheduling/v1", "api/scheduling/v1"),
    ("k8s.io/api/storage/v1", "api/storage/v1"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "apimachinery/pkg/apis/meta/v1"),
    ("k8s.io/apimachinery/pkg/version", "apimachinery/pkg/version"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "apiextensions-apiserver/pkg/apis/apiextensions/v1"),
    ("k8s.io/kube-aggregator/pkg/apis/apiregistration/v1", "kube-aggregator/pkg/apis/apiregistration/v1"),
];

/// Packages whose protobuf definitions the reference data lacks.
const PROTOS: &[&str] =
    &["apiextensions-apiserver/pkg/apis/apiextensions/v1", "kube-aggregator/pkg/apis/apiregistration/v1"];

/// Validation tags of single fields that are kept; `+k8s:maxItems=32` becomes `rule:maxItems=32`.
const RULES: &[&str] =
    &["required", "maxItems", "minimum", "maximum", "maxLength", "maxBytes", "format", "immutable", "unique"];

/// Reads the Go sources below `root`.
///
/// # Errors
/// When a source cannot be read.
pub fn extract(root: &Path) -> Result<Files> {
    let mut text =
        "# Facts of the Go types of Kubernetes v1.36. Written by `cargo run -p xtask -- facts`.\n".to_owned();
    let mut packages = Vec::new();
    for (path, folder) in PACKAGES {
        packages.push(Package::read(path, &root.join(folder))?);
    }
    // `type List metav1.List` has the fields of the other type.
    for index in 0..packages.len() {
        for (name, target) in packages[index].aliases.clone() {
            let (owner, kind) = target.rsplit_once('.').unwrap_or_default();
            let found =
                packages.iter().find(|package| package.name == owner).and_then(|package| package.structs.get(kind));
            if let Some(fields) = found.cloned() {
                packages[index].structs.insert(name, fields);
            }
        }
    }
    let enums: BTreeSet<String> = packages
        .iter()
        .flat_map(|package| package.enums.keys().map(|name| format!("{}.{name}", package.name)))
        .collect();
    for package in &packages {
        package.print(&enums, &mut text);
    }
    let mut files = Files::from([("go.txt".to_owned(), text)]);
    for folder in PROTOS {
        let proto =
            fs::read_to_string(root.join(folder).join("generated.proto")).with_context(|| (*folder).to_owned())?;
        let lines = proto.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end());
        let code = lines
            .skip_while(|line| !line.starts_with("package"))
            .filter(|line| !line.is_empty() && !line.starts_with("import"));
        files.insert(format!("{}.proto", package_name(folder)), code.map(|line| format!("{line}\n")).collect());
    }
    Ok(files)
}

#[derive(Default)]
struct Package {
    name: String,
    group: String,
    /// Values of the string types that are marked `+enum`.
    enums: BTreeMap<String, Vec<String>>,
    structs: BTreeMap<String, Vec<GoField>>,
    /// Types that are declared as a type of another package.
    aliases: BTreeMap<String, String>,
}

#[derive(Clone)]
struct GoField {
    json: String,
    number: u32,
    /// The type without pointer and slice, qualified with its package's short name.
    type_name: String,
    flags: Vec<String>,
}

impl Package {
    fn read(path: &str, folder: &Path) -> Result<Package> {
        let name = package_name(path);
        let group = name.split('.').next().unwrap_or_default().to_owned();
        let mut package = Package { name, group, ..Package::default() };
        let mut sources = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let file = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_source = name.ends_with(".go") && !name.ends_with("_test.go");
            if is_source && !name.starts_with("zz_") && !name.starts_with("generated.pb") {
                sources.push(fs::read_to_string(&file).with_context(|| file.display().to_string())?);
            }
        }
        sources.sort();
        for source in &sources {
            if let Some(group) = source.lines().find_map(|line| line.strip_prefix("// +groupName=")) {
                group.clone_into(&mut package.group);
            }
        }
        for source in &sources {
            package.types(source);
        }
        for source in &sources {
            package.constants(source);
        }
        Ok(package)
    }

    /// Collects structs, and the names of enums.
    fn types(&mut self, source: &str) {
        let imports = imports(source);
        let mut markers: Vec<&str> = Vec::new();
        let mut open: Option<String> = None;
        for line in source.lines() {
            let code = line.trim();
            if let Some(comment) = code.strip_prefix("//") {
                markers.extend(comment.trim().strip_prefix('+'));
                continue;
            }
            if let Some(name) = &open {
                if line == "}" {
                    open = None;
                } else if let Some(field) = field(code, &markers, &imports, &self.name) {
                    self.structs.entry(name.clone()).or_default().push(field);
                }
            } else if let Some(declared) = code.strip_prefix("type ") {
                let words: Vec<&str> = declared.split_whitespace().collect();
                match words.as_slice() {
                    [name, "struct", "{"] => {
                        self.structs.entry((*name).to_owned()).or_default();
                        open = Some((*name).to_owned());
                    }
                    [name, target] if target.contains('.') => {
                        self.aliases.insert((*name).to_owned(), qualified(target, &imports, &self.name));
                    }
                    [name, "string", ..] if markers.contains(&"enum") => {
                        self.enums.insert((*name).to_owned(), Vec::new());
                    }
                    _ => {}
                }
            }
            if !code.is_empty() || open.is_some() {
                markers.clear();
            }
        }
    }

    /// Collects the values of enums: `Name Type = "value"`.
    fn constants(&mut self, source: &str) {
        for line in source.lines() {
            let code = line.trim().strip_prefix("const ").unwrap_or(line.trim());
            let Some((left, right)) = code.split_once('=') else { continue };
            let words: Vec<&str> = left.split_whitespace().collect();
            let ([_, type_name], Some(rest)) = (words.as_slice(), right.trim().strip_prefix('"')) else { continue };
            if let (Some(values), Some((value, _))) = (self.enums.get_mut(*type_name), rest.split_once('"'))
                && !values.iter().any(|known| known == value)
            {
                values.push(value.to_owned());
            }
        }
    }

    fn print(&self, enums: &BTreeSet<String>, text: &mut String) {
        let version = self.name.split('.').nth(1).unwrap_or_default();
        let api = if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) };
        line(text, format_args!("package {} {api}", self.name));
        for (name, values) in &self.enums {
            let mut values = values.clone();
            values.sort();
            line(text, format_args!("enum {name} {}", serde_json::Value::from(values)));
        }
        for (name, fields) in &self.structs {
            if fields.is_empty() {
                continue;
            }
            line(text, format_args!("struct {name}"));
            for field in fields {
                let mut flags = field.flags.clone();
                if enums.contains(&field.type_name) {
                    flags.push(format!("enum={}", field.type_name));
                }
                line(text, format_args!("  {} {} {}", field.json, field.number, flags.join(" ")));
            }
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let mut printed = String::new();
    // Writing to a string cannot fail.
    if write!(printed, "{line}").is_ok() {
        text.push_str(printed.trim_end());
        text.push('\n');
    }
}

/// Returns the short names of imported packages by their names in the source.
fn imports(source: &str) -> BTreeMap<String, String> {
    let lines = source.lines().map(str::trim).take_while(|line| !line.starts_with("type "));
    let paths = lines.filter_map(|line| {
        let (alias, rest) = line.strip_prefix("import ").unwrap_or(line).split_once('"')?;
        let path = rest.strip_suffix('"')?;
        path.contains("k8s.io/").then(|| (alias.trim(), path))
    });
    paths
        .map(|(alias, path)| {
            let alias = if alias.is_empty() { path.rsplit('/').next().unwrap_or(path) } else { alias };
            (alias.to_owned(), package_name(path))
        })
        .collect()
}

/// Parses a field with a tag, such as ``Name *string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"` ``.
fn field(code: &str, markers: &[&str], imports: &BTreeMap<String, String>, package: &str) -> Option<GoField> {
    let (declared, tag) = code.split_once('`')?;
    let json = quoted(tag, "json:\"")?;
    let number = quoted(tag, "protobuf:\"").and_then(|tag| tag.split(',').nth(1)?.parse().ok()).unwrap_or(0);
    let words: Vec<&str> = declared.split_whitespace().collect();
    let mut options = json.split(',');
    let name = options.next().unwrap_or_default();
    let options: Vec<&str> = options.collect();
    if name == "-" {
        return None;
    }
    let go_type = *words.last()?;
    let mut flags = Vec::new();
    let is_inline = options.contains(&"inline");
    if is_inline {
        flags.push("inline".to_owned());
    }
    if go_type.starts_with('*') {
        flags.push("pointer".to_owned());
    }
    if !is_inline && !options.contains(&"omitempty") {
        flags.push("always".to_owned());
    }
    for marker in markers {
        if let Some(value) = marker.strip_prefix("default=") {
            flags.push(format!("default={value}"));
        }
        let tag = marker.strip_prefix("k8s:alpha(").and_then(|rest| rest.split_once(")=+k8s:")).map(|(_, tag)| tag);
        let tag = tag.or_else(|| marker.strip_prefix("k8s:"));
        if let Some(tag) = tag.filter(|tag| RULES.contains(&tag.split('=').next().unwrap_or_default())) {
            flags.push(format!("rule:{}", tag.replace('"', "")));
        }
    }
    let type_name = qualified(go_type.trim_start_matches(['*', '[', ']']), imports, package);
    if is_inline {
        flags.push(format!("type={type_name}"));
    }
    let json = if is_inline || name.is_empty() { "_" } else { name };
    Some(GoField { json: json.to_owned(), number, type_name, flags })
}

/// Returns a type's name with the short name of its package.
fn qualified(name: &str, imports: &BTreeMap<String, String>, package: &str) -> String {
    match name.split_once('.') {
        Some((alias, name)) => format!("{}.{name}", imports.get(alias).map_or(alias, String::as_str)),
        None => format!("{package}.{name}"),
    }
}

fn quoted<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once('"').map(|(value, _)| value)
}
