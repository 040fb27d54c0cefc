use super::*;

#[test]
fn entries_stay_below_the_target() {
    let below = |path: &str| Place::Below(path.into());
    for (asked, entry, expected) in [
        ("/tmp/file", "tmp/file", below("")),
        ("/tmp/dir", "tmp/dir/a/b", below("a/b")),
        ("/tmp/dir/", "tmp/dir/", below("")),
        ("./dir", "./dir/a", below("a")),
        ("dir", "dir/./a", below("a")),
        ("../dir", "dir/a", below("a")),
        ("/tmp/x/../dir", "tmp/dir/a", below("a")),
        ("/", "etc/passwd", below("etc/passwd")),
        (".", "./a", below("a")),
        ("/tmp/dir", "/tmp/dir/a", below("a")),
        ("/tmp/dir", "tmp/dir/../../../etc/passwd", Place::Outside),
        ("/tmp/dir", "../tmp/dir/a", Place::Outside),
        ("/", "../etc/passwd", Place::Outside),
        ("/tmp/dir", "tmp/dir2/a", Place::Foreign),
        ("/tmp/dir", "etc/passwd", Place::Foreign),
        ("/tmp/dir", "tmp", Place::Foreign),
    ] {
        assert_eq!(place(Path::new(asked), Path::new(entry)), expected, "{asked} {entry}");
    }
}

/// Builds an archive whose names are not checked.
fn archive(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let is_link = kind.is_symlink() || kind.is_hard_link();
        let data = if is_link { "" } else { *content };
        if is_link {
            header.set_link_name(content).expect("a short name");
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

#[test]
fn no_entry_is_written_outside_the_target() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (target, outside) = (directory.path().join("target"), directory.path().join("outside"));
    fs::create_dir_all(&target).expect("writable");
    fs::create_dir_all(&outside).expect("writable");
    std::os::unix::fs::symlink(&outside, target.join("old-link")).expect("a link");
    fs::write(directory.path().join("secret"), "secret").expect("writable");
    let hostile = archive(&[
        (Directory, "src/sub", ""),
        (Regular, "src/sub/good", "good"),
        (Link, "src/again", "src/sub/good"),
        (Regular, "src/../../escaped", "bad"),
        (Regular, "src/sub/../../../escaped", "bad"),
        (Symlink, "src/link", "../outside"),
        (Regular, "src/link/escaped", "kept inside"),
        (Regular, "src/old-link/escaped", "bad"),
        (Link, "src/stolen", "src/../../secret"),
    ]);
    let warnings = unpack(&hostile[..], Path::new("/src"), &target, " (hint)").expect("unpacked");
    assert_eq!(fs::read(target.join("sub/good")).expect("the good file"), b"good");
    assert_eq!(fs::read(target.join("again")).expect("the hard link"), b"good");
    assert_eq!(fs::read(target.join("link/escaped")).expect("a plain directory"), b"kept inside");
    assert!(!directory.path().join("escaped").exists());
    assert_eq!(fs::read_dir(&outside).expect("readable").count(), 0);
    assert!(!target.join("stolen").exists());
    let skipped = ["outside target", "outside target", "skipping symlink", "behind a symbolic link", "skipping link"];
    assert_eq!(warnings.len(), skipped.len(), "{warnings:?}");
    assert!(warnings.iter().zip(skipped).all(|(warning, part)| warning.contains(part)), "{warnings:?}");
    assert!(warnings[2].ends_with(" -> \"../outside\" (hint)"), "{warnings:?}");
    let foreign = archive(&[(Regular, "etc/passwd", "bad")]);
    assert!(unpack(&foreign[..], Path::new("/src"), &target, "").is_err());
}

#[test]
fn a_tree_is_packed_and_unpacked_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = directory.path().join("source");
    fs::create_dir_all(source.join("deep/empty")).expect("writable");
    let long = "n".repeat(120);
    fs::write(source.join("deep").join(&long), vec![7; 100_000]).expect("writable");
    fs::write(source.join("top"), "top").expect("writable");
    std::os::unix::fs::symlink("top", source.join("link")).expect("a link");
    let mut packed = Vec::new();
    pack(&source, Path::new("renamed"), &mut packed).expect("packed");
    let target = directory.path().join("target");
    let warnings = unpack(&packed[..], Path::new("renamed"), &target, "").expect("unpacked");
    assert_eq!(fs::read(target.join("deep").join(&long)).expect("the long name"), vec![7; 100_000]);
    assert_eq!(fs::read(target.join("top")).expect("the file"), b"top");
    assert!(target.join("deep/empty").is_dir() && !target.join("link").exists());
    assert_eq!(warnings.len(), 1, "{warnings:?}");

    // A single file gets exactly the target's name.
    let mut packed = Vec::new();
    pack(&source.join("top"), Path::new("file"), &mut packed).expect("packed");
    let alone = directory.path().join("new/alone");
    unpack(&packed[..], Path::new("file"), &alone, "").expect("unpacked");
    assert_eq!(fs::read(&alone).expect("the file"), b"top");
    let refused = unpack(&packed[..], Path::new("file"), &target, "").expect_err("a directory").to_string();
    assert!(refused.contains("is a directory; name the file to write"), "{refused}");
}
