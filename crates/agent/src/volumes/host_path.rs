//! hostPath volumes: directories and files of the node.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Why a hostPath volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostPathError {
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    Type { path: PathBuf, wanted: &'static str },
    #[error("hostPath {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Checks the type of a host path, and creates the path if its type requires it.
pub(crate) fn check(source: &HostPathVolumeSource) -> Result<(), HostPathError> {
    let path = Path::new(&source.path);
    let io = |source| HostPathError::Io { path: path.to_owned(), source };
    let is = |test: fn(&std::fs::FileType) -> bool, wanted| match std::fs::metadata(path) {
        Ok(found) if test(&found.file_type()) => Ok(()),
        _ => Err(HostPathError::Type { path: path.to_owned(), wanted }),
    };
    match source.type_.as_deref().unwrap_or_default() {
        "" if path.exists() => Ok(()),
        "" => std::fs::create_dir_all(path).map_err(io),
        "DirectoryOrCreate" if path.exists() => is(std::fs::FileType::is_dir, "directory"),
        "DirectoryOrCreate" => {
            std::fs::create_dir_all(path).map_err(io)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(io)
        }
        "FileOrCreate" if path.exists() => is(std::fs::FileType::is_file, "file"),
        "FileOrCreate" => {
            std::fs::File::create(path).map_err(io)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(io)
        }
        "Directory" => is(std::fs::FileType::is_dir, "directory"),
        "File" => is(std::fs::FileType::is_file, "file"),
        "Socket" => is(FileTypeExt::is_socket, "socket"),
        "CharDevice" => is(FileTypeExt::is_char_device, "character device"),
        "BlockDevice" => is(FileTypeExt::is_block_device, "block device"),
        _ => Err(HostPathError::Type { path: path.to_owned(), wanted: "known type" }),
    }
}
