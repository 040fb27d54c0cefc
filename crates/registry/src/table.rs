//! Columns and cells that all kinds share.

use std::borrow::Cow;

use jiff::Timestamp;
use quorate_api::{LabelSelector, duration};
use serde_json::Value;

use crate::descriptor::Column;
use crate::value::{at, items, text, typed};

/// kubectl's text for an empty cell.
pub const NONE: &str = "<none>";

/// Returns a column that is always shown.
pub fn column(name: &'static str) -> Column {
    make(name, "string", "", 0)
}

/// Returns a column of the wide output.
pub fn wide(name: &'static str) -> Column {
    make(name, "string", "", 1)
}

pub fn integer(name: &'static str) -> Column {
    make(name, "integer", "", 0)
}

/// Returns a name column of the wide output.
pub fn wide_name(name: &'static str) -> Column {
    make(name, "string", "name", 1)
}

/// Returns the name column, the first one of nearly every kind.
pub fn name_column() -> Column {
    make("Name", "string", "name", 0)
}

/// A column together with what stands under it.
pub struct Printed {
    pub column: Column,
    pub cell: Cell,
}

/// The content of a cell.
#[derive(Clone, Copy)]
pub enum Cell {
    Age,
    /// The text or number at a dotted path.
    Field(&'static str),
    /// The text at a dotted path, or `<none>`, or `<unset>` for some kinds.
    FieldOr(&'static str, &'static str),
    /// The number of elements of the list or map at a dotted path.
    Count(&'static str),
    /// `true` or `false`.
    Flag(&'static str),
    Of(fn(&Value) -> Value),
    /// Like [`Cell::Of`], with the time.
    At(fn(&Value, Timestamp) -> Value),
}

impl Printed {
    /// Returns the column as one of the wide output.
    pub fn wide(mut self) -> Self {
        self.column.priority = 1;
        self
    }

    pub fn of_type(mut self, data_type: &'static str) -> Self {
        self.column.data_type = Cow::Borrowed(data_type);
        self
    }

    pub fn print(&self, object: &Value, now: Timestamp) -> Value {
        match self.cell {
            Cell::Age => age_cell(object, now),
            Cell::Field(path) => match at(object, path) {
                Value::Null if self.column.data_type == "integer" => 0.into(),
                Value::Null => "".into(),
                value => value.clone(),
            },
            Cell::FieldOr(path, otherwise) => match at(object, path) {
                Value::Null => otherwise.into(),
                Value::String(text) if text.is_empty() => otherwise.into(),
                Value::String(text) => text.as_str().into(),
                value => value.to_string().into(),
            },
            Cell::Count(path) => match at(object, path) {
                Value::Array(list) => list.len().into(),
                Value::Object(map) => map.len().into(),
                _ => 0.into(),
            },
            Cell::Flag(path) => (at(object, path) == &Value::Bool(true)).into(),
            Cell::Of(print) => print(object),
            Cell::At(print) => print(object, now),
        }
    }
}

pub fn printed(name: &'static str, cell: Cell) -> Printed {
    Printed { column: column(name), cell }
}

/// Returns a column of numbers.
pub fn number(name: &'static str, cell: Cell) -> Printed {
    Printed { column: integer(name), cell }
}

pub fn printed_name() -> Printed {
    Printed { column: name_column(), cell: Cell::Field("metadata.name") }
}

pub fn printed_age() -> Printed {
    printed("Age", Cell::Age)
}

/// Returns the columns of a kind for which Kubernetes has no printer.
pub fn plain() -> Vec<Printed> {
    vec![printed_name(), printed("Created At", Cell::Field("metadata.creationTimestamp")).of_type("date")]
}

/// Returns the wide columns of workloads.
pub fn printed_workload() -> [Printed; 3] {
    [
        printed("Containers", Cell::Of(|object| workload_cells(&object["spec"])[0].clone())).wide(),
        printed("Images", Cell::Of(|object| workload_cells(&object["spec"])[1].clone())).wide(),
        printed("Selector", Cell::Of(|object| workload_cells(&object["spec"])[2].clone())).wide(),
    ]
}

fn make(name: &'static str, data_type: &'static str, format: &'static str, priority: i32) -> Column {
    Column {
        name: Cow::Borrowed(name),
        data_type: Cow::Borrowed(data_type),
        format: Cow::Borrowed(format),
        priority,
        description: Cow::Borrowed(""),
    }
}

pub fn name_cell(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// Returns the time since the object was created.
pub fn age_cell(object: &Value, now: Timestamp) -> Value {
    Value::from(since(&object["metadata"]["creationTimestamp"], now))
}

/// Returns the time since a timestamp field; `<unknown>` when it is absent.
pub fn since(time: &Value, now: Timestamp) -> String {
    duration::age(time.as_str().and_then(|time| time.parse().ok()), now)
}

/// Returns the text, or `<none>` when it is empty.
pub fn or_none(text: &str) -> Value {
    Value::from(if text.is_empty() { NONE } else { text })
}

/// Returns the wide columns of workloads: names and images of the template's containers, and the selector.
pub fn workload_cells(spec: &Value) -> [Value; 3] {
    let containers = items(&spec["template"]["spec"]["containers"]);
    let joined = |field: &str| containers.iter().map(|c| text(&c[field])).collect::<Vec<_>>().join(",");
    [Value::from(joined("name")), Value::from(joined("image")), or_none(&selector_text(&spec["selector"]))]
}

/// Formats a `metav1.LabelSelector` as a string.
pub fn selector_text(selector: &Value) -> String {
    typed(selector).and_then(|s| LabelSelector::from_object(&s).ok()).map_or_else(String::new, |s| s.to_string())
}

/// Formats a list as `a,b,c`, or `a,b,c + 2 more...` past three elements; `nothing` when it is empty.
pub fn abbreviated(list: &[String], nothing: &str) -> String {
    const SHOWN: usize = 3;
    match list.len() {
        0 => nothing.to_owned(),
        count if count > SHOWN => format!("{} + {} more...", list[..SHOWN].join(","), count - SHOWN),
        _ => list.join(","),
    }
}
