//! Deterministic names. Equal inputs give equal names, so a repeated create finds the object that it made before.

use std::collections::BTreeSet;

/// Characters of generated names: no vowels and no look-alikes, as in Kubernetes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Maximum length of the base before the suffix. Names that become host names have at most 63 characters.
const MAX_BASE_LEN: usize = 58;
const SUFFIX_LEN: usize = 5;
const HASH_LEN: usize = 10;

/// Returns a hash of `parts` that is stable across releases and platforms, in characters that any name may contain.
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    encode(digest(parts), HASH_LEN)
}

/// Returns `<base><suffix>`. The suffix depends only on `seed`, unless that name is taken.
pub(crate) fn suffixed(base: &str, seed: &[&[u8]], is_taken: impl Fn(&str) -> bool) -> String {
    let mut end = base.len().min(MAX_BASE_LEN);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let base = &base[..end];
    let mut attempt = 0_u32;
    loop {
        let number = attempt.to_be_bytes();
        let parts: Vec<&[u8]> = seed.iter().copied().chain([number.as_slice()]).collect();
        let name = format!("{base}{}", encode(digest(&parts), SUFFIX_LEN));
        if !is_taken(&name) {
            return name;
        }
        attempt += 1;
    }
}

/// Returns `count` distinct free names.
pub(crate) fn suffixed_many(
    base: &str,
    seed: &[&[u8]],
    count: usize,
    is_taken: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for index in 0..count {
        let index = index.to_be_bytes();
        let parts: Vec<&[u8]> = seed.iter().copied().chain([index.as_slice()]).collect();
        let name = suffixed(base, &parts, |name| names.contains(name) || is_taken(name));
        names.insert(name);
    }
    names
}

/// Computes FNV-1a over the length-prefixed parts, with a finalizer that lets every input bit affect every character.
fn digest(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.len().to_be_bytes().iter().chain(part.iter()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn encode(mut value: u64, len: usize) -> String {
    let base = ALPHABET.len() as u64;
    let mut text = String::with_capacity(len);
    for _ in 0..len {
        let digit = usize::try_from(value % base).expect("below 27");
        text.push(char::from(ALPHABET[digit]));
        value /= base;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_distinct() {
        // Stored names depend on this hash. A change to it would rename the next ReplicaSet of every Deployment.
        assert_eq!(hash(&[b"template", b""]), hash(&[b"template", b""]));
        assert_ne!(hash(&[b"template", b""]), hash(&[b"templat", b"e"]));
        let names = suffixed_many("web-", &[b"uid"], 500, |_| false);
        assert_eq!(names.len(), 500);
        assert!(names.iter().all(|name| name.len() == "web-".len() + SUFFIX_LEN));
    }

    #[test]
    fn taken_names_are_skipped_and_long_bases_truncated() {
        let first = suffixed("web-", &[b"uid"], |_| false);
        let second = suffixed("web-", &[b"uid"], |name| name == first);
        assert_ne!(first, second);
        assert_eq!(suffixed(&"x".repeat(80), &[], |_| false).len(), 63);
    }
}
