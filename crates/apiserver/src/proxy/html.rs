//! Rewrites the links of an HTML page while it passes through. Pure, and bounded: only an unfinished tag is kept.
//!
//! The scanner follows the tokenizer of the HTML standard (section 13.2.5) as far as it concerns the places of start tags and their
//! attributes. Everything else passes unchanged, byte for byte.

use std::ops::Range;

/// Maximum size of a tag whose links are rewritten, in bytes. A longer one passes unchanged.
const MAX_TAG_BYTES: usize = 64 * 1024;

/// The attributes that hold a link, by element, as in Kubernetes.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is text up to their end tag.
const TEXT_ELEMENTS: [&str; 9] =
    ["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After `<`.
    TagOpen,
    /// After `</`.
    EndTagOpen,
    /// After `<!`, with the number of dashes.
    Declaration(u8),
    /// With the number of dashes just before, at most 2, and whether a `!` followed them.
    Comment(u8, bool),
    /// A doctype or a malformed comment, up to `>`.
    BogusComment,
    /// The content of a text element, with the number of bytes of its end tag just before.
    TextElement(&'static str, usize),
    TagName,
    BeforeAttribute,
    AttributeName,
    AfterAttributeName,
    BeforeValue,
    /// In a value with this quote.
    Quoted(u8),
    Unquoted,
}

/// The places of an attribute in the tag.
#[derive(Clone, Debug)]
struct Attribute {
    name: Range<usize>,
    value: Range<usize>,
}

/// Rewrites links by a function that returns the new form of a link, or `None` for a link that stays as it is.
pub(super) struct Rewriter<F> {
    rewrite: F,
    state: State,
    /// The bytes of an unfinished tag.
    tag: Vec<u8>,
    /// The tag is longer than [`MAX_TAG_BYTES`], so its bytes have passed already.
    is_oversized: bool,
    is_end_tag: bool,
    name_end: usize,
    attributes: Vec<Attribute>,
}

impl<F: Fn(&str) -> Option<String>> Rewriter<F> {
    pub fn new(rewrite: F) -> Self {
        Rewriter {
            rewrite,
            state: State::Text,
            tag: Vec::new(),
            is_oversized: false,
            is_end_tag: false,
            name_end: 0,
            attributes: Vec::new(),
        }
    }

    /// Takes the next bytes of the page, and returns those that are finished.
    pub fn write(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        while let Some(first) = bytes.first() {
            if self.state == State::Text {
                let text = bytes.iter().position(|byte| *byte == b'<').unwrap_or(bytes.len());
                out.extend_from_slice(&bytes[..text]);
                bytes = &bytes[text..];
                if !bytes.is_empty() {
                    bytes = &bytes[1..];
                    self.begin_tag(b"<", State::TagOpen);
                }
                continue;
            }
            self.step(*first, &mut out);
            bytes = &bytes[1..];
        }
        out
    }

    /// Returns the bytes of a tag that the page ended in.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tag)
    }

    fn begin_tag(&mut self, bytes: &[u8], state: State) {
        self.tag.extend_from_slice(bytes);
        self.state = state;
        (self.is_oversized, self.is_end_tag, self.name_end) = (false, false, 0);
        self.attributes.clear();
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c');
        match self.state {
            State::Text => {}
            State::TagOpen => match byte {
                b'/' => self.hold(byte, State::EndTagOpen, out),
                b'!' => self.pass(byte, State::Declaration(0), out),
                b'?' => self.pass(byte, State::BogusComment, out),
                _ if byte.is_ascii_alphabetic() => self.hold(byte, State::TagName, out),
                // The `<` was text, but this byte may begin a tag.
                b'<' => {
                    out.append(&mut self.tag);
                    self.begin_tag(b"<", State::TagOpen);
                }
                _ => self.pass(byte, State::Text, out),
            },
            State::EndTagOpen => match byte {
                b'>' => self.pass(byte, State::Text, out),
                _ if byte.is_ascii_alphabetic() => {
                    self.is_end_tag = true;
                    self.hold(byte, State::TagName, out);
                }
                _ => self.pass(byte, State::BogusComment, out),
            },
            State::Declaration(dashes) => match (byte, dashes) {
                (b'-', 0) => self.pass(byte, State::Declaration(1), out),
                // `<!-->` is a whole comment.
                (b'-', _) => self.pass(byte, State::Comment(2, false), out),
                (b'>', _) => self.pass(byte, State::Text, out),
                _ => self.pass(byte, State::BogusComment, out),
            },
            State::Comment(dashes, bang) => {
                let next = match byte {
                    b'>' if dashes == 2 => State::Text,
                    b'-' if bang => State::Comment(1, false),
                    b'-' => State::Comment((dashes + 1).min(2), false),
                    b'!' if dashes == 2 && !bang => State::Comment(2, true),
                    _ => State::Comment(0, false),
                };
                self.pass(byte, next, out);
            }
            State::BogusComment => {
                let next = if byte == b'>' { State::Text } else { State::BogusComment };
                self.pass(byte, next, out);
            }
            State::TextElement(element, matched) => self.step_text(byte, is_space, element, matched, out),
            _ => self.step_tag(byte, is_space, out),
        }
    }

    /// Looks for the end tag in the content of a text element.
    fn step_text(&mut self, byte: u8, is_space: bool, element: &'static str, matched: usize, out: &mut Vec<u8>) {
        let expected = match matched {
            0 => Some(b'<'),
            1 => Some(b'/'),
            _ => element.as_bytes().get(matched - 2).copied(),
        };
        let restarted = State::TextElement(element, usize::from(byte == b'<'));
        match expected {
            Some(expected) if byte.to_ascii_lowercase() == expected => {
                self.pass(byte, State::TextElement(element, matched + 1), out);
            }
            None if byte == b'>' => self.pass(byte, State::Text, out),
            None if is_space || byte == b'/' => {
                self.begin_tag(&[], State::BeforeAttribute);
                self.is_end_tag = true;
                self.hold(byte, State::BeforeAttribute, out);
            }
            _ => self.pass(byte, restarted, out),
        }
    }

    fn step_tag(&mut self, byte: u8, is_space: bool, out: &mut Vec<u8>) {
        let at = self.tag.len();
        if self.state == State::TagName && (is_space || matches!(byte, b'/' | b'>')) {
            self.name_end = at;
        }
        let next = match self.state {
            State::Quoted(quote) if byte == quote => {
                self.end_value(at);
                State::BeforeAttribute
            }
            State::Quoted(quote) => State::Quoted(quote),
            State::BeforeValue if is_space => State::BeforeValue,
            State::BeforeValue if matches!(byte, b'"' | b'\'') => {
                self.begin_value(at + 1);
                State::Quoted(byte)
            }
            State::Unquoted if !is_space && byte != b'>' => State::Unquoted,
            State::BeforeValue if byte != b'>' => {
                self.begin_value(at);
                State::Unquoted
            }
            _ if byte == b'>' => {
                if self.state == State::Unquoted {
                    self.end_value(at);
                }
                self.end_name(at);
                return self.end_tag(out);
            }
            State::Unquoted => {
                self.end_value(at);
                State::BeforeAttribute
            }
            State::TagName if is_space || byte == b'/' => State::BeforeAttribute,
            State::TagName => State::TagName,
            State::BeforeAttribute if is_space || byte == b'/' => State::BeforeAttribute,
            State::AttributeName if is_space => {
                self.end_name(at);
                State::AfterAttributeName
            }
            State::AfterAttributeName if is_space => State::AfterAttributeName,
            State::AttributeName | State::AfterAttributeName if byte == b'=' => {
                self.end_name(at);
                State::BeforeValue
            }
            State::AttributeName | State::AfterAttributeName if byte == b'/' => {
                self.end_name(at);
                State::BeforeAttribute
            }
            State::AttributeName => State::AttributeName,
            _ => {
                self.begin_name(at);
                State::AttributeName
            }
        };
        self.hold(byte, next, out);
    }

    fn begin_name(&mut self, at: usize) {
        if !self.is_oversized {
            self.attributes.push(Attribute { name: at..at, value: 0..0 });
        }
    }

    fn end_name(&mut self, at: usize) {
        if self.state == State::AttributeName
            && let Some(attribute) = self.attributes.last_mut()
        {
            attribute.name.end = at;
        }
    }

    fn begin_value(&mut self, at: usize) {
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.value = at..at;
        }
    }

    fn end_value(&mut self, at: usize) {
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.value.end = at;
        }
    }

    /// Keeps a byte of a tag until its end.
    fn hold(&mut self, byte: u8, next: State, out: &mut Vec<u8>) {
        if self.is_oversized {
            return self.pass(byte, next, out);
        }
        self.tag.push(byte);
        self.state = next;
        if self.tag.len() > MAX_TAG_BYTES {
            self.is_oversized = true;
            self.attributes.clear();
            out.append(&mut self.tag);
        }
    }

    /// Emits what was kept, and a byte.
    fn pass(&mut self, byte: u8, next: State, out: &mut Vec<u8>) {
        out.append(&mut self.tag);
        out.push(byte);
        self.state = next;
    }

    /// Emits a tag with its links rewritten.
    fn end_tag(&mut self, out: &mut Vec<u8>) {
        if self.is_oversized || self.is_end_tag {
            return self.pass(b'>', State::Text, out);
        }
        let name = self.tag.get(1..self.name_end).unwrap_or_default().to_ascii_lowercase();
        let links = LINKS.iter().find(|(element, _)| element.as_bytes() == name).map_or(&[][..], |(_, links)| links);
        let mut copied = 0;
        for Attribute { name, value } in &self.attributes {
            let name = &self.tag[name.clone()];
            let link = std::str::from_utf8(&self.tag[value.clone()]).unwrap_or_default();
            let is_link = links.iter().any(|link| link.as_bytes().eq_ignore_ascii_case(name));
            if let Some(rewritten) =
                Some(link).filter(|link| is_link && !link.is_empty()).and_then(|link| (self.rewrite)(link))
            {
                out.extend_from_slice(&self.tag[copied..value.start]);
                out.extend_from_slice(rewritten.as_bytes());
                copied = value.end;
            }
        }
        self.tag.drain(..copied);
        let text_element = TEXT_ELEMENTS.iter().find(|element| element.as_bytes() == name);
        self.pass(b'>', text_element.map_or(State::Text, |element| State::TextElement(element, 0)), out);
    }
}

#[cfg(test)]
mod tests;
