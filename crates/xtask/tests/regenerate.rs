//! The checked-in data is what the generator writes.

use std::fs;
use std::path::Path;

#[test]
fn the_checked_in_data_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Some(from) = xtask::reference() else { return };
    let folder = root.join("crates/schema/data");
    let generated = xtask::generate::generate(&from).expect("the data");
    for (name, text) in &generated {
        let checked_in = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let line = checked_in.lines().zip(text.lines()).find(|(old, new)| old != new);
        assert!(
            checked_in == *text,
            "{name} differs, first at {line:?}; run `cargo run -p xtask -- schema --from DIR`"
        );
    }
    for part in ["", "docs"] {
        for entry in fs::read_dir(folder.join(part)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&folder).expect("below the folder").to_string_lossy().into_owned();
            assert!(path.is_dir() || generated.contains_key(&name), "{name} is not generated");
        }
    }
}
