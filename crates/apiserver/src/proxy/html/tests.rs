use super::*;

fn rewriter() -> Rewriter<impl Fn(&str) -> Option<String>> {
    Rewriter::new(|link: &str| link.starts_with('/').then(|| format!("/p{link}")))
}

/// Rewrites a page that arrives in pieces of this size.
fn rewritten(page: &[u8], piece: usize) -> Vec<u8> {
    let mut rewriter = rewriter();
    let mut out: Vec<u8> = page.chunks(piece).flat_map(|bytes| rewriter.write(bytes)).collect();
    out.extend(rewriter.finish());
    out
}

#[test]
fn only_links_in_start_tags_are_rewritten() {
    let cases = [
        (r#"<a href="/a">/a</a>"#, r#"<a href="/p/a">/a</a>"#),
        (r"<A class=x HREF = '/a?b=1&amp;c' id=/y>t", r"<A class=x HREF = '/p/a?b=1&amp;c' id=/y>t"),
        (r"<img src=/a.png longdesc=/b usemap=#c>", r"<img src=/p/a.png longdesc=/p/b usemap=#c>"),
        (r#"<img src=/a/><br/><link href="/x"/>"#, r#"<img src=/p/a/><br/><link href="/p/x"/>"#),
        (r#"<a href="b"><a href="//c"><div href="/d">"#, r#"<a href="b"><a href="/p//c"><div href="/d">"#),
        (r#"<a title="<a href='/x'>" href="/y">"#, r#"<a title="<a href='/x'>" href="/p/y">"#),
        (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/p/y">"#),
        (r#"<!--><a href="/y"><!---><a href="/y">"#, r#"<!--><a href="/p/y"><!---><a href="/p/y">"#),
        (
            r#"<!-- --!><a href="/y"><!-- --!-><a href="/x">-->"#,
            r#"<!-- --!><a href="/p/y"><!-- --!-><a href="/x">-->"#,
        ),
        (r#"<!doctype html><html manifest="/m">"#, r#"<!doctype html><html manifest="/p/m">"#),
        (r#"<?xml a="/x"?></ a="/x"></><a href="/y">"#, r#"<?xml a="/x"?></ a="/x"></><a href="/p/y">"#),
        (
            r#"<script src="/s">"<a href='/x'>" </scripty </SCRIPT ><a href="/y">"#,
            r#"<script src="/p/s">"<a href='/x'>" </scripty </SCRIPT ><a href="/p/y">"#,
        ),
        (
            r#"<style><</style><textarea><a href="/x"></textarea><a href=/y>"#,
            r#"<style><</style><textarea><a href="/x"></textarea><a href=/p/y>"#,
        ),
        (
            r#"1 < 2 << <a href="/y"></a title=">"><a href="/z">"#,
            r#"1 < 2 << <a href="/p/y"></a title=">"><a href="/p/z">"#,
        ),
        (
            r#"<a href><a href=><a =href="/x" href="/y"><a/href="/y">"#,
            r#"<a href><a href=><a =href="/x" href="/p/y"><a/href="/p/y">"#,
        ),
        (r#"<a href="/x"#, r#"<a href="/x"#),
        ("<form\taction='/f'\n>é<a\u{a0}href='/x'>", "<form\taction='/p/f'\n>é<a\u{a0}href='/x'>"),
    ];
    for (page, expected) in cases {
        for piece in [1, 2, 3, 7, page.len()] {
            let ours = rewritten(page.as_bytes(), piece);
            assert_eq!(String::from_utf8_lossy(&ours), expected, "in pieces of {piece}");
        }
    }
}

#[test]
fn a_page_without_links_passes_byte_for_byte() {
    // Bytes that mean something to the scanner, in an order that a generator decides.
    let alphabet = b"<>/!-=\"' a\nscript?\xff\x00";
    let mut seed = 1u32;
    for _ in 0..2000 {
        let page: Vec<u8> = (0..200)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                alphabet[(seed >> 16) as usize % alphabet.len()]
            })
            .collect();
        let ours = rewritten(&page, 1 + (seed >> 24) as usize % 50);
        assert_eq!(ours, page, "{:?}", String::from_utf8_lossy(&page));
    }
}

#[test]
fn an_endless_tag_passes_in_bounded_memory() {
    let mut rewriter = rewriter();
    let mut sent = rewriter.write(b"<a title=\"").len();
    for _ in 0..64 {
        sent += rewriter.write(&[b'x'; 8192]).len();
        assert!(rewriter.tag.len() <= MAX_TAG_BYTES);
    }
    assert_eq!(sent, 10 + 64 * 8192, "everything has passed");
    assert_eq!(rewriter.write(b"<\" href=/x><a href=/y>"), b"<\" href=/x><a href=/p/y>");
}
