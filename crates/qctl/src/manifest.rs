//! Reads the objects of `-f` from files, directories and standard input: YAML with many documents, JSON, and lists.

use std::path::{Path, PathBuf};

use quorate_api::yaml;
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::streams::Streams;

/// The flags that name manifests.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FileFlags {
    /// Files, directories or `-` with the objects
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filenames: Vec<String>,
    /// Descend into directories given by -f
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

impl FileFlags {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filenames.is_empty()
    }
}

/// One object and the file it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub object: Value,
    pub source: String,
}

impl Manifest {
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    #[must_use]
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty())
    }
}

/// Reads all objects that the flags name, in the given order. The files of a directory are in the order of their names.
///
/// # Errors
/// When a file cannot be read or parsed, or contains anything but objects with `apiVersion` and `kind`.
pub fn read(flags: &FileFlags, streams: &mut Streams) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for name in &flags.filenames {
        if name == "-" {
            let text = streams.read_input()?;
            manifests.extend(parse(&text, "STDIN")?);
            continue;
        }
        for file in files(Path::new(name), flags.recursive)? {
            let text = std::fs::read_to_string(&file)
                .map_err(|source| CliError::io(format!("error reading [{}]", file.display()), source))?;
            manifests.extend(parse(&text, &file.display().to_string())?);
        }
    }
    Ok(manifests)
}

fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if !path.exists() {
        return Err(CliError::usage(format!("the path \"{}\" does not exist", path.display())));
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| CliError::io(format!("error reading [{}]", path.display()), source);
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                found.extend(files(&entry, true)?);
            }
        } else if entry
            .extension()
            .is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|known| extension == *known))
        {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Parses the objects of one text.
///
/// # Errors
/// When the text is neither YAML nor JSON, or an object has no `apiVersion` or `kind`.
pub fn parse(text: &str, source: &str) -> Result<Vec<Manifest>> {
    let failed = |error: &dyn std::fmt::Display| CliError::usage(format!("error parsing {source}: {error}"));
    let mut documents = Vec::new();
    // A brace begins either JSON, possibly several values in a row, or a flow mapping of YAML.
    let json: Option<Vec<Value>> = text
        .trim_start()
        .starts_with('{')
        .then(|| serde_json::Deserializer::from_str(text).into_iter().collect::<std::result::Result<_, _>>().ok())
        .flatten();
    if let Some(values) = json {
        documents = values;
    } else {
        let read =
            yaml::documents(text).map_err(|error| failed(&format_args!("error converting YAML to JSON: {error}")))?;
        documents.extend(read.into_iter().map(|document| document.value));
    }
    let mut manifests = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        flatten(document, source, &mut manifests)?;
    }
    Ok(manifests)
}

fn flatten(mut object: Value, source: &str, out: &mut Vec<Manifest>) -> Result<()> {
    if !object.is_object() {
        return Err(CliError::usage(format!("error validating \"{source}\": the document is not an object")));
    }
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array();
    if is_list {
        if let Value::Array(items) = object["items"].take() {
            for item in items {
                flatten(item, source, out)?;
            }
        }
        return Ok(());
    }
    let unset = |field: &&str| object[*field].as_str().is_none_or(str::is_empty);
    let missing: Vec<String> =
        ["apiVersion", "kind"].iter().filter(|field| unset(field)).map(|field| format!("{field} not set")).collect();
    if !missing.is_empty() {
        let missing = if missing.len() == 1 { missing.concat() } else { format!("[{}]", missing.join(", ")) };
        return Err(CliError::usage(format!("error validating \"{source}\": error validating data: {missing}")));
    }
    out.push(Manifest { object, source: source.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_mappings_are_read_as_yaml_and_consecutive_values_as_json() {
        for (text, count) in [
            ("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", 1),
            (
                r#"{"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}} {"apiVersion": "v1", "kind": "B", "metadata": {"name": "b"}}"#,
                2,
            ),
        ] {
            assert_eq!(parse(text, "STDIN").expect("readable").len(), count, "{text}");
        }
    }

    #[test]
    fn documents_and_lists_are_split_into_objects() {
        let text = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: b, namespace: ns}\n";
        let manifests = parse(text, "f").expect("two objects");
        assert_eq!(
            manifests.iter().map(|m| (m.kind(), m.name(), m.namespace())).collect::<Vec<_>>(),
            [("Pod", "a", None), ("Secret", "b", Some("ns"))]
        );
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}} {"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}"#;
        assert_eq!(parse(json, "f").expect("two objects").len(), 2);
    }

    #[test]
    fn yaml_oddities_read_as_kubernetes_reads_them() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {1: one, true: &a x, b: *a}\nspec:\n  volumes:\n  - configMap: {name: c, defaultMode: 0644}\n";
        let object = &parse(text, "f").expect("an object")[0].object;
        assert_eq!(object["spec"]["volumes"][0]["configMap"]["defaultMode"], 420);
        assert_eq!(object["metadata"]["labels"]["1"], "one");
        assert_eq!(object["metadata"]["labels"]["true"], "x");
        assert_eq!(object["metadata"]["labels"]["b"], "x");
        let data = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {mode: \"0644\"}\n";
        assert_eq!(parse(data, "f").expect("an object")[0].object["data"]["mode"], "0644");
    }

    #[test]
    fn objects_without_a_type_are_refused_with_their_file() {
        for (text, missing) in
            [("kind: Pod\n", "apiVersion not set"), ("metadata: {}\n", "[apiVersion not set, kind not set]")]
        {
            let error = parse(text, "x.yaml").expect_err("the object has no type").to_string();
            assert_eq!(error, format!("error validating \"x.yaml\": error validating data: {missing}"));
        }
        assert!(parse("a: [", "x.yaml").expect_err("not YAML").to_string().starts_with("error parsing x.yaml: "));
    }

    #[test]
    fn only_manifests_of_a_directory_are_read_in_order() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, object) in [("b.yaml", "b"), ("a.json", "a"), ("c.txt", "c")] {
            let text =
                format!("{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{object}\"}}}}");
            std::fs::write(directory.path().join(name), text).expect("writable");
        }
        let flags = FileFlags { filenames: vec![directory.path().display().to_string()], recursive: false };
        let (mut streams, ..) = Streams::captured("");
        let names: Vec<String> =
            read(&flags, &mut streams).expect("two objects").iter().map(|m| m.name().to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
