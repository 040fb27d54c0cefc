//! Evaluates parsed paths on values.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Filter, Node, Operand, Operator, Step};

/// Formats a value like kubectl: strings without quotes, all other values as JSON.
#[must_use]
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn render(nodes: &[Node], root: &Value, current: &Value, text: &mut String) {
    for node in nodes {
        match node {
            Node::Text(literal) => text.push_str(literal),
            Node::Path(path) => {
                let values: Vec<String> = select(path, root, current).into_iter().map(text_of).collect();
                text.push_str(&values.join(" "));
            }
            Node::Range { over, body } => {
                for value in select(over, root, current) {
                    render(body, root, value, text);
                }
            }
        }
    }
}

pub(super) fn select_all<'a>(nodes: &[Node], root: &'a Value, current: &'a Value) -> Vec<&'a Value> {
    let mut selected = Vec::new();
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Path(path) => selected.extend(select(path, root, current)),
            Node::Range { over, body } => {
                for value in select(over, root, current) {
                    selected.extend(select_all(body, root, value));
                }
            }
        }
    }
    selected
}

fn select<'a>(path: &[Step], root: &'a Value, current: &'a Value) -> Vec<&'a Value> {
    let mut values = vec![current];
    for step in path {
        let mut next = Vec::new();
        for value in values {
            apply(step, root, value, &mut next);
        }
        values = next;
    }
    values
}

fn apply<'a>(step: &Step, root: &'a Value, value: &'a Value, out: &mut Vec<&'a Value>) {
    match step {
        Step::Root => out.push(root),
        Step::Current => out.push(value),
        Step::Field(name) => out.extend(value.get(name.as_str())),
        Step::Wildcard => match value {
            Value::Array(items) => out.extend(items),
            Value::Object(fields) => out.extend(fields.values()),
            _ => {}
        },
        Step::Descend => descend(value, out),
        Step::Index(index) => {
            if let Value::Array(items) = value
                && let Some(at) = position(*index, items.len())
            {
                out.extend(items.get(at));
            }
        }
        Step::Slice { start, end, step } => {
            if let Value::Array(items) = value {
                slice(items, *start, *end, *step, out);
            }
        }
        Step::Union(steps) => {
            for step in steps {
                apply(step, root, value, out);
            }
        }
        Step::Filter(filter) => match value {
            Value::Array(items) => out.extend(items.iter().filter(|item| holds(filter, root, item))),
            Value::Object(fields) => out.extend(fields.values().filter(|item| holds(filter, root, item))),
            _ => {}
        },
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, out)),
        Value::Object(fields) => fields.values().for_each(|item| descend(item, out)),
        _ => {}
    }
}

/// Resolves an index. Negative indices count from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if index < 0 { length + index } else { index };
    usize::try_from(at).ok()
}

fn slice<'a>(items: &'a [Value], start: Option<i64>, end: Option<i64>, step: i64, out: &mut Vec<&'a Value>) {
    let length = items.len();
    let bound = |value: i64| position(value, length).unwrap_or(0).min(length);
    let (start, end) = (start.map_or(0, bound), end.map_or(length, bound));
    if start < end {
        out.extend(items[start..end].iter().step_by(usize::try_from(step).unwrap_or(1).max(1)));
    }
}

fn holds(filter: &Filter, root: &Value, item: &Value) -> bool {
    match filter {
        Filter::Exists(operand) => match operand {
            Operand::Path(path) => !select(path, root, item).is_empty(),
            Operand::Literal(value) => *value == Value::Bool(true),
        },
        Filter::Compare { left, operator, right } => {
            let (left, right) = (resolve(left, root, item), resolve(right, root, item));
            left.iter().any(|left| right.iter().any(|right| compare(left, *operator, right)))
        }
    }
}

fn resolve<'a>(operand: &'a Operand, root: &'a Value, item: &'a Value) -> Vec<&'a Value> {
    match operand {
        Operand::Path(path) => select(path, root, item),
        Operand::Literal(value) => vec![value],
    }
}

fn compare(left: &Value, operator: Operator, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right))
        }
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (left, right) if left == right => Some(Ordering::Equal),
        _ => None,
    };
    match operator {
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Greater => order == Some(Ordering::Greater),
        Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}
