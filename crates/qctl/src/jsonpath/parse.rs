//! Parses templates. Error messages are kubectl's where it has one.

use serde_json::Value;

use super::{Filter, Node, Operand, Operator, Step};

type Parsed<T> = Result<T, String>;

struct Reader<'a> {
    rest: &'a str,
}

pub(super) fn template(text: &str) -> Parsed<Vec<Node>> {
    let mut reader = Reader { rest: text };
    let (nodes, ended) = reader.nodes()?;
    if ended { Err("not in range, nothing to end".into()) } else { Ok(nodes) }
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expect(&mut self, text: &str, reason: &str) -> Parsed<()> {
        self.skip_spaces();
        if self.eat(text) { Ok(()) } else { Err(reason.to_owned()) }
    }

    /// Parses text and actions up to the end of the template or the `{end}` of a range. The flag is true for `{end}`.
    fn nodes(&mut self) -> Parsed<(Vec<Node>, bool)> {
        let mut nodes = Vec::new();
        while !self.rest.is_empty() {
            let until = self.rest.find('{').unwrap_or(self.rest.len());
            if until > 0 {
                nodes.push(Node::Text(self.rest[..until].to_owned()));
                self.rest = &self.rest[until..];
                continue;
            }
            self.rest = &self.rest[1..];
            self.skip_spaces();
            if self.keyword("end") {
                self.expect("}", "unclosed action")?;
                return Ok((nodes, true));
            }
            if self.keyword("range") {
                self.skip_spaces();
                let over = self.path()?;
                self.expect("}", "unclosed action")?;
                let (body, ended) = self.nodes()?;
                if !ended {
                    return Err("unexpected end of template: {range} lacks its {end}".into());
                }
                nodes.push(Node::Range { over, body });
                continue;
            }
            loop {
                self.skip_spaces();
                match self.peek() {
                    None => return Err("unclosed action".into()),
                    Some('}') => {
                        self.take();
                        break;
                    }
                    Some(quote @ ('"' | '\'')) => nodes.push(Node::Text(self.quoted(quote)?)),
                    Some(_) => {
                        let path = self.path()?;
                        if path.is_empty() {
                            return Err(format!("unrecognized character in action: {:?}", self.peek().unwrap_or('}')));
                        }
                        nodes.push(Node::Path(path));
                    }
                }
            }
        }
        Ok((nodes, false))
    }

    fn keyword(&mut self, word: &str) -> bool {
        let follows = self.rest.strip_prefix(word).and_then(|rest| rest.chars().next());
        matches!(follows, Some(character) if !character.is_alphanumeric()) && self.eat(word)
    }

    fn quoted(&mut self, quote: char) -> Parsed<String> {
        self.take();
        let mut text = String::new();
        loop {
            match self.take().ok_or("unterminated quoted string")? {
                character if character == quote => return Ok(text),
                '\\' => text.push(match self.take().ok_or("unterminated quoted string")? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                character => text.push(character),
            }
        }
    }

    fn path(&mut self) -> Parsed<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some('$') => {
                    self.take();
                    steps.push(Step::Root);
                }
                Some('@') => {
                    self.take();
                    steps.push(Step::Current);
                }
                Some('.') => {
                    self.take();
                    if self.eat(".") {
                        steps.push(Step::Descend);
                    }
                    match self.peek() {
                        Some('*') => {
                            self.take();
                            steps.push(Step::Wildcard);
                        }
                        Some('[' | '.') => {}
                        _ => {
                            let name = self.field();
                            if !name.is_empty() {
                                steps.push(Step::Field(name));
                            } else if steps.is_empty() {
                                steps.push(Step::Current);
                            }
                        }
                    }
                }
                Some('[') => {
                    self.take();
                    steps.push(self.bracket()?);
                }
                Some(character) if steps.is_empty() && (character.is_alphanumeric() || character == '_') => {
                    steps.push(Step::Field(self.field()));
                }
                _ => return Ok(steps),
            }
        }
    }

    fn field(&mut self) -> String {
        const END: &[char] =
            &['.', '[', ']', '}', '{', ' ', '\t', '\n', '(', ')', '=', '!', '<', '>', ',', '$', '@', '|', '&'];
        let mut name = String::new();
        while let Some(character) = self.peek() {
            if character == '\\' {
                self.take();
                name.extend(self.take());
            } else if END.contains(&character) {
                break;
            } else {
                name.push(character);
                self.take();
            }
        }
        name
    }

    /// Parses the content of `[` and `]`.
    fn bracket(&mut self) -> Parsed<Step> {
        self.skip_spaces();
        if self.eat("?(") {
            let filter = self.filter()?;
            self.expect(")", "unclosed filter")?;
            self.expect("]", "unclosed array expect ]")?;
            return Ok(Step::Filter(Box::new(filter)));
        }
        if !self.rest.contains(']') {
            return Err("unterminated array".into());
        }
        let mut steps = vec![self.element()?];
        loop {
            self.skip_spaces();
            if self.eat("]") {
                break;
            }
            if !self.eat(",") {
                return Err("unclosed array expect ]".into());
            }
            steps.push(self.element()?);
        }
        Ok(if steps.len() == 1 { steps.remove(0) } else { Step::Union(steps) })
    }

    fn element(&mut self) -> Parsed<Step> {
        self.skip_spaces();
        match self.peek() {
            Some('*') => {
                self.take();
                Ok(Step::Wildcard)
            }
            Some(quote @ ('"' | '\'')) => Ok(Step::Field(self.quoted(quote)?)),
            _ => {
                let first = self.integer()?;
                if !self.eat(":") {
                    return first.map(Step::Index).ok_or_else(|| format!("invalid array index {}", self.rest));
                }
                let end = self.integer()?;
                let step = if self.eat(":") { self.integer()?.unwrap_or(1) } else { 1 };
                if step < 1 {
                    return Err("step must be > 0".into());
                }
                Ok(Step::Slice { start: first, end, step })
            }
        }
    }

    fn integer(&mut self) -> Parsed<Option<i64>> {
        self.skip_spaces();
        let digits = self
            .rest
            .find(|character: char| character != '-' && !character.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        self.skip_spaces();
        if number.is_empty() {
            return Ok(None);
        }
        number.parse().map(Some).map_err(|_| format!("invalid array index {number}"))
    }

    fn filter(&mut self) -> Parsed<Filter> {
        const OPERATORS: [(&str, Operator); 7] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("=", Operator::Equal),
        ];
        let left = self.operand()?;
        self.skip_spaces();
        for (text, operator) in OPERATORS {
            if self.eat(text) {
                let right = self.operand()?;
                return Ok(Filter::Compare { left, operator, right });
            }
        }
        Ok(Filter::Exists(left))
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.skip_spaces();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => Ok(Operand::Literal(Value::String(self.quoted(quote)?))),
            Some('@' | '$' | '.') => Ok(Operand::Path(self.path()?)),
            Some(_) => {
                let until = self.rest.find([')', ' ', '=', '!', '<', '>']).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(until);
                let value = serde_json::from_str(word).map_err(|_| format!("unrecognized operand {word}"))?;
                self.rest = rest;
                Ok(Operand::Literal(value))
            }
            None => Err("unclosed filter".into()),
        }
    }
}
