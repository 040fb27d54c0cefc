//! Reads `facts/go.txt`, which [`crate::facts`] writes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// The facts of all packages.
#[derive(Debug, Default)]
pub struct Facts {
    pub packages: Vec<Package>,
}

#[derive(Debug, Default)]
pub struct Package {
    pub name: String,
    /// The `apiVersion` of the package's kinds.
    pub api_version: String,
    /// Names and values, as a JSON array.
    pub enums: Vec<(String, String)>,
    /// Structs by their names; fields in the order of the source.
    pub structs: BTreeMap<String, Vec<GoField>>,
}

#[derive(Clone, Debug)]
pub struct GoField {
    /// The name in JSON, `_` for a struct whose fields take this one's place.
    pub json: String,
    /// The number in protobuf; 0 when it has none.
    pub number: u32,
    pub flags: Vec<String>,
}

impl GoField {
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// Returns the value of a flag such as `type=core.v1.VolumeSource`.
    #[must_use]
    pub fn value(&self, flag: &str) -> Option<&str> {
        self.flags.iter().find_map(|known| known.strip_prefix(flag)?.strip_prefix('='))
    }
}

impl Facts {
    /// # Errors
    /// When a line has another form.
    pub fn parse(text: &str) -> Result<Facts> {
        let mut facts = Facts::default();
        let mut open = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // The values of an enum may have spaces in them.
            let words: Vec<&str> = if line.starts_with("enum ") {
                line.splitn(3, ' ').collect()
            } else {
                line.split_whitespace().collect()
            };
            if let ["package", name, api_version] = words.as_slice() {
                let (name, api_version) = ((*name).to_owned(), (*api_version).to_owned());
                facts.packages.push(Package { name, api_version, ..Package::default() });
                continue;
            }
            let package = facts.packages.last_mut().context("no package")?;
            match words.as_slice() {
                ["package", name] => {
                    let name = (*name).to_owned();
                    facts.packages.push(Package { name, ..Package::default() });
                }
                ["enum", name, values] => package.enums.push(((*name).to_owned(), (*values).to_owned())),
                ["struct", name] => {
                    (*name).clone_into(&mut open);
                    package.structs.insert(open.clone(), Vec::new());
                }
                [json, number, flags @ ..] => {
                    let field = GoField {
                        json: (*json).to_owned(),
                        number: number.parse().with_context(|| line.to_owned())?,
                        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                    };
                    package.structs.get_mut(&open).context("no struct")?.push(field);
                }
                _ => bail!("unexpected line {line:?}"),
            }
        }
        Ok(facts)
    }
}
