//! `get` as tables of the server, one for each type.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{CliError, Result};
use crate::output::{Column, Format, Row, ServerTable, TablePrinter, TableStyle, age_since};
use crate::path::RequestPath;
use crate::resources::{Resource, Target};
use crate::session::Session;
use crate::transport::Call;

use super::Get;

pub const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The rows of one type.
struct Section {
    resource: Arc<Resource>,
    table: ServerTable,
}

pub async fn run(get: &Get, session: &mut Session, format: &Format, targets: &[Target]) -> Result<()> {
    let mut sections: Vec<Section> = Vec::new();
    let mut errors = Vec::new();
    for target in targets {
        match table(get, session, target).await {
            Ok(table) => match sections.last_mut().filter(|section| section.resource == target.resource) {
                Some(section) => section.table.rows.extend(table.rows),
                None => sections.push(Section { resource: target.resource.clone(), table }),
            },
            Err(error) if get.ignore_not_found && error.is_not_found() => {}
            Err(error @ CliError::Connect { .. }) => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    if let Some(path) = &get.sort_by {
        let path = super::sort_path(path)?;
        for section in &mut sections {
            section.table.rows.sort_by(|left, right| {
                super::compare(path.select(&left.object).first().copied(), path.select(&right.object).first().copied())
            });
        }
    }
    sections.retain(|section| !section.table.rows.is_empty());
    if sections.is_empty() {
        if errors.is_empty() && !get.ignore_not_found {
            nothing_found(get, session, targets)?;
        }
        return CliError::collect(errors);
    }
    let several = targets.iter().any(|target| target.resource != targets[0].resource);
    for (index, section) in sections.iter().enumerate() {
        if index > 0 && !get.no_headers {
            session.streams.line("")?;
        }
        let style = style(get, format, &section.resource, several);
        session.streams.text(TablePrinter::default().server_table(&section.table, &style))?;
    }
    CliError::collect(errors)
}

/// Returns the table style that the flags request.
pub fn style(get: &Get, format: &Format, resource: &Resource, with_kind: bool) -> TableStyle {
    TableStyle {
        wide: matches!(format, Format::Table { wide: true }),
        no_headers: get.no_headers,
        with_namespace: get.select.all_namespaces && resource.namespaced,
        show_labels: get.show_labels,
        label_columns: get.label_columns.clone(),
        kind_prefix: (with_kind || get.show_kind).then(|| resource.kind_name()),
    }
}

async fn table(get: &Get, session: &Session, target: &Target) -> Result<ServerTable> {
    let namespace = target.namespace.as_deref();
    let include = get.sort_by.as_ref().map(|_| "Object");
    if let Some(name) = &target.name {
        let mut path = RequestPath::object(&target.resource, namespace, name);
        if let Some(subresource) = &get.subresource {
            path = path.subresource(subresource);
        }
        return page(session, path.maybe_query("includeObject", include)).await;
    }
    let mut whole: Option<ServerTable> = None;
    let mut token: Option<String> = None;
    loop {
        let path = get
            .select
            .query(RequestPath::collection(&target.resource, namespace))
            .maybe_query("includeObject", include)
            .maybe_query("limit", Some(get.chunk_size).filter(|size| *size > 0))
            .maybe_query("continue", token.as_ref());
        let next = page(session, path).await?;
        token = Some(next.metadata.continue_token.clone()).filter(|token| !token.is_empty());
        let table = match whole.take() {
            Some(mut table) => {
                table.rows.extend(next.rows);
                table
            }
            None => next,
        };
        if token.is_none() {
            return Ok(table);
        }
        whole = Some(table);
    }
}

async fn page(session: &Session, path: RequestPath) -> Result<ServerTable> {
    let bytes = session.transport.bytes(&Call::get(path).accept(ACCEPT)).await?;
    let malformed = |error: serde_json::Error| CliError::Answer(format!("a table: {error}"));
    let table: ServerTable = serde_json::from_slice(&bytes).map_err(malformed)?;
    if table.kind == "Table" {
        return Ok(table);
    }
    // A server that supports no tables for this kind sends the objects.
    Ok(of_objects(serde_json::from_slice(&bytes).map_err(malformed)?, table))
}

/// Makes a table with the names and ages of an object or a list.
fn of_objects(document: Value, mut table: ServerTable) -> ServerTable {
    let now = jiff::Timestamp::now();
    let objects = match document.get("items") {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![document],
    };
    let column = |name: &str| Column { name: name.to_owned(), priority: 0 };
    table.column_definitions = vec![column("Name"), column("Age")];
    table.rows = objects
        .into_iter()
        .map(|object| {
            let age = age_since(object["metadata"]["creationTimestamp"].as_str(), now);
            Row { cells: vec![object["metadata"]["name"].clone(), age.into()], object }
        })
        .collect();
    table
}

fn nothing_found(get: &Get, session: &mut Session, targets: &[Target]) -> Result<()> {
    let in_namespace = !get.select.all_namespaces && targets.iter().any(|target| target.resource.namespaced);
    let text = if in_namespace {
        format!("No resources found in {} namespace.", session.namespace)
    } else {
        "No resources found".to_owned()
    };
    session.streams.note(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_servers_without_tables_are_shown_by_name_and_age() {
        let list =
            json!({"kind": "ConfigMapList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]});
        let table = of_objects(list, ServerTable::default());
        let text = TablePrinter::default().server_table(&table, &TableStyle::default());
        assert_eq!(text, "NAME   AGE\na      <unknown>\nb      <unknown>\n");
    }
}
