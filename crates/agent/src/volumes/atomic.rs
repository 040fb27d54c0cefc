//! Directories whose files change atomically: `..data` links to a directory that is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::payload::File;

const DATA: &str = "..data";

/// Makes `dir` show exactly these files. Readers see either all old or all new files. `group` may read them.
pub(crate) fn write(dir: &Path, files: &BTreeMap<String, File>, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if shows(dir, files)? {
        // An agent that died halfway has not made all links.
        return link_top_level(dir, files);
    }
    let generation = format!("..{:016x}", rand::random::<u64>());
    let new = dir.join(&generation);
    std::fs::create_dir(&new)?;
    for (path, file) in files {
        let target = new.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.content)?;
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        if group.is_some() {
            std::os::unix::fs::chown(&target, None, group)?;
        }
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
    }
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    let swap = dir.join("..data_tmp");
    remove_if_there(&swap)?;
    std::os::unix::fs::symlink(&generation, &swap)?;
    std::fs::rename(&swap, dir.join(DATA))?;
    link_top_level(dir, files)?;
    remove_generations_but(dir, &generation)
}

/// Removes all generations but the current one, including those that an agent that died has left incomplete.
fn remove_generations_but(dir: &Path, current: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_generation = name.to_string_lossy().starts_with("..") && entry.file_type()?.is_dir();
        if is_generation && name != current {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Links the top-level names through `..data`, and removes links that are no longer needed.
fn link_top_level(dir: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

/// Whether the directory shows exactly these contents already.
fn shows(dir: &Path, files: &BTreeMap<String, File>) -> io::Result<bool> {
    let data = dir.join(DATA);
    if std::fs::symlink_metadata(&data).is_err() {
        return Ok(false);
    }
    let mut found = 0;
    let mut open = vec![data.clone()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(&data).map_err(io::Error::other)?.to_string_lossy().into_owned();
            match files.get(&name) {
                Some(file) if std::fs::read(&path)? == file.content => found += 1,
                _ => return Ok(false),
            }
        }
    }
    Ok(found == files.len())
}
