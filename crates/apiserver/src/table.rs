//! The `Table` representation, which is what `kubectl get` prints.

use jiff::Timestamp;
use quorate_api::Revision;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::representation::IncludeObject;

/// Returns a table of the kind without metadata and rows.
pub(crate) fn head(served: &Served) -> Value {
    let column = |column: &quorate_registry::Column| {
        json!({
            "name": column.name,
            "type": column.data_type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    let columns: Vec<Value> = served.descriptor.columns.iter().map(column).collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns })
}

/// Returns the row of a stored object that has its `resourceVersion`.
pub(crate) fn row(served: &Served, include: IncludeObject, now: Timestamp, object: &Value) -> Value {
    let cells = served.descriptor.strategy.cells(object, now);
    match include {
        IncludeObject::None => json!({ "cells": cells }),
        IncludeObject::Object => json!({ "cells": cells, "object": served.shown(object) }),
        IncludeObject::Metadata => {
            let metadata = &served.shown(object)["metadata"];
            let partial =
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata });
            json!({ "cells": cells, "object": partial })
        }
    }
}

/// Returns the metadata of a list or table at a revision.
pub(crate) fn list_metadata(revision: Revision) -> Value {
    json!({ "resourceVersion": revision.to_string() })
}
