//! Tables of the server and of qctl.

use serde::Deserialize;
use serde_json::Value;

/// A `meta.k8s.io/v1` Table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTable {
    pub kind: String,
    pub metadata: ListMetadata,
    pub column_definitions: Vec<Column>,
    pub rows: Vec<Row>,
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMetadata {
    pub resource_version: String,
    #[serde(rename = "continue")]
    pub continue_token: String,
}

/// A column of a [`ServerTable`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Column {
    pub name: String,
    /// Columns with a priority above 0 are shown only with `-o wide`.
    pub priority: i32,
}

/// A row of a [`ServerTable`]: the cells, and the object or its metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Row {
    pub cells: Vec<Value>,
    pub object: Value,
}

/// The style of a table, from the flags of `get`.
#[derive(Clone, Debug, Default)]
pub struct TableStyle {
    pub wide: bool,
    pub no_headers: bool,
    pub with_namespace: bool,
    pub show_labels: bool,
    pub label_columns: Vec<String>,
    /// Prefix of each name, such as `pod/`.
    pub kind_prefix: Option<String>,
}

/// Formats tables in batches of rows, for watches. Columns keep their widths from one batch to the next.
#[derive(Debug, Default)]
pub struct TablePrinter {
    widths: Vec<usize>,
    header_printed: bool,
}

/// kubectl's minimum width of a column, padding included.
const MINIMUM_WIDTH: usize = 6;
const PADDING: usize = 3;

impl TablePrinter {
    /// Formats rows with these headers. The header line is only in the first batch.
    #[must_use]
    pub fn rows(&mut self, headers: &[String], rows: &[Vec<String>], no_headers: bool) -> String {
        let mut lines: Vec<&[String]> = Vec::with_capacity(rows.len() + 1);
        if !no_headers && !self.header_printed {
            lines.push(headers);
            self.header_printed = true;
        }
        lines.extend(rows.iter().map(Vec::as_slice));
        for line in &lines {
            for (index, cell) in line.iter().enumerate() {
                let width = (cell.chars().count() + PADDING).max(MINIMUM_WIDTH);
                match self.widths.get_mut(index) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for line in lines {
            for (index, cell) in line.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < line.len() {
                    let width = self.widths.get(index).copied().unwrap_or(MINIMUM_WIDTH);
                    text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
                }
            }
            text.push('\n');
        }
        text
    }

    /// Formats the rows of a server's table in this style.
    #[must_use]
    pub fn server_table(&mut self, table: &ServerTable, style: &TableStyle) -> String {
        let headers = headers(&table.column_definitions, style);
        let rows: Vec<Vec<String>> =
            table.rows.iter().map(|row| cells(&table.column_definitions, row, style)).collect();
        self.rows(&headers, &rows, style.no_headers)
    }
}

fn headers(columns: &[Column], style: &TableStyle) -> Vec<String> {
    let mut headers = Vec::new();
    if style.with_namespace {
        headers.push("NAMESPACE".to_owned());
    }
    headers.extend(columns.iter().filter(|column| shown(column, style)).map(|column| column.name.to_uppercase()));
    for label in &style.label_columns {
        headers.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
    }
    if style.show_labels {
        headers.push("LABELS".to_owned());
    }
    headers
}

fn shown(column: &Column, style: &TableStyle) -> bool {
    style.wide || column.priority == 0
}

fn cells(columns: &[Column], row: &Row, style: &TableStyle) -> Vec<String> {
    let mut line = Vec::with_capacity(columns.len() + 2);
    if style.with_namespace {
        line.push(row.object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
    }
    for (index, (column, cell)) in columns.iter().zip(&row.cells).enumerate() {
        if !shown(column, style) {
            continue;
        }
        let text = cell_text(cell);
        line.push(match &style.kind_prefix {
            Some(prefix) if index == 0 => format!("{prefix}/{text}"),
            _ => text,
        });
    }
    let labels = row.object["metadata"]["labels"].as_object();
    for label in &style.label_columns {
        line.push(labels.and_then(|labels| labels.get(label)).and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    if style.show_labels {
        line.push(match labels {
            Some(labels) if !labels.is_empty() => {
                let pairs: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
                pairs.join(",")
            }
            _ => "<none>".to_owned(),
        });
    }
    line
}

/// Formats a cell on one line. The text after a line break is left out.
fn cell_text(cell: &Value) -> String {
    let text = match cell {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    };
    match text.find(['\n', '\r', '\x0c']) {
        Some(at) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ServerTable {
        serde_json::from_value(serde_json::json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "Node", "priority": 1}],
            "rows": [
                {"cells": ["a", "1/1", "n1"], "object": {"metadata": {"name": "a", "namespace": "d", "labels": {"app": "x", "b": "y"}}}},
                {"cells": ["longer-name", 0, "n2"], "object": {"metadata": {"name": "longer-name", "namespace": "d"}}},
            ],
        }))
        .expect("a table")
    }

    #[test]
    fn columns_are_aligned_like_kubectls() {
        let text = TablePrinter::default().server_table(&table(), &TableStyle::default());
        assert_eq!(text, "NAME          READY\na             1/1\nlonger-name   0\n");
    }

    #[test]
    fn flags_add_columns() {
        let style = TableStyle {
            wide: true,
            with_namespace: true,
            show_labels: true,
            label_columns: vec!["example.com/app".into(), "b".into()],
            kind_prefix: Some("pod".into()),
            no_headers: false,
        };
        let text = TablePrinter::default().server_table(&table(), &style);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAMESPACE", "NAME", "READY", "NODE", "APP", "B", "LABELS"]);
        assert_eq!(lines[1], ["d", "pod/a", "1/1", "n1", "y", "app=x,b=y"]);
        assert_eq!(lines[2], ["d", "pod/longer-name", "0", "n2", "<none>"]);
    }

    #[test]
    fn widths_and_the_header_carry_over_to_later_rows() {
        let mut printer = TablePrinter::default();
        let headers = ["NAME".to_owned(), "X".to_owned()];
        assert_eq!(
            printer.rows(&headers, &[vec!["abcdefgh".into(), "1".into()]], false),
            "NAME       X\nabcdefgh   1\n"
        );
        assert_eq!(printer.rows(&headers, &[vec!["a".into(), "2".into()]], false), "a          2\n");
    }
}
