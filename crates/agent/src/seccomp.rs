//! Localhost seccomp profiles: files below `<data>/seccomp` that the node's administrator provides.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::volumes;

/// Maximum size of a profile, in bytes.
const LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("cannot load seccomp profile \"{path}\": {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("seccomp profile \"{path}\" is larger than {LIMIT} bytes")]
    TooLarge { path: PathBuf },
    #[error("seccomp profile \"{path}\" is not JSON: {source}")]
    Malformed { path: PathBuf, source: serde_json::Error },
}

/// Reads a profile and returns its JSON.
pub(crate) fn read(data_dir: &Path, file: &str) -> Result<String, SeccompError> {
    let root = data_dir.join("seccomp");
    let path = root.join(file);
    let failed = |source| SeccompError::Read { path: path.clone(), source };
    let mut opened = volumes::open_beneath(&root, file).map_err(failed)?.take(LIMIT + 1);
    let mut text = String::new();
    let size = opened.read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(size).is_ok_and(|size| size > LIMIT) {
        return Err(SeccompError::TooLarge { path });
    }
    // Docker gets the text as it is, and would take a word such as `unconfined` for an option instead of a profile.
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(text),
        Err(source) => Err(SeccompError::Malformed { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_outside_their_directory_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("outside.json"), "{}").expect("a file");
        let root = dir.path().join("seccomp");
        std::fs::create_dir_all(root.join("team")).expect("a directory");
        std::fs::write(root.join("team/strict.json"), "{\"defaultAction\":\"SCMP_ACT_ERRNO\"}").expect("a file");
        std::fs::write(root.join("word.json"), "unconfined").expect("a file");
        std::os::unix::fs::symlink("../outside.json", root.join("link.json")).expect("a link");
        let read = |file: &str| read(dir.path(), file).map_err(|error| error.to_string());
        assert_eq!(read("team/strict.json").as_deref(), Ok("{\"defaultAction\":\"SCMP_ACT_ERRNO\"}"));
        for refused in ["word.json", "link.json", "../outside.json", "absent.json", "team"] {
            let error = read(refused).expect_err("it is not a profile");
            assert!(error.contains("seccomp profile"), "{error}");
        }
    }
}
