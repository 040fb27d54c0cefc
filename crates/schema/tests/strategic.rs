//! Comparison with the hand-written table of strategic merge, where it speaks.

use quorate_api::GroupVersionKind;
use quorate_api::patch::strategic::schema::{self, List, ROOTS};
use quorate_schema::{Model, TypeId, builtin};

fn check(model: &Model, id: TypeId, table: &schema::Type) {
    let ty = model.get(id);
    if !table.name.is_empty() {
        assert_eq!(ty.qualified_name(), table.name);
    }
    for row in table.fields {
        let field = ty.field(row.name).unwrap_or_else(|| panic!("{} {}", table.name, row.name));
        let patch = field.patch.as_ref().filter(|patch| patch.merges);
        let key = patch.and_then(|patch| patch.key.as_deref());
        match row.list {
            List::Replace => assert_eq!(patch, None, "{} {}", table.name, row.name),
            List::MergeScalars => assert!(patch.is_some() && key.is_none(), "{} {}", table.name, row.name),
            List::MergeBy(expected) => assert_eq!(key, Some(expected), "{} {}", table.name, row.name),
        }
        if let Some(inner) = row.ty {
            check(model, field.shape.kind.object().expect("a type"), inner);
        }
    }
    for field in ty.fields.iter().filter(|field| field.patch.as_ref().is_some_and(|patch| patch.merges)) {
        assert!(table.name.is_empty() || table.field(&field.name).is_some(), "{} {}", table.name, field.name);
    }
}

#[test]
fn the_model_merges_as_the_table() {
    let model = builtin();
    for (group, kind, table) in ROOTS {
        let api_version = if group.is_empty() { "v1" } else { "apps/v1" };
        check(model, model.kind(api_version, kind).expect("a kind"), table);
    }
    let other = schema::root(&GroupVersionKind::from_static("batch", "v1", "Job")).expect("a table");
    check(model, model.kind("batch/v1", "Job").expect("a kind"), other);
}
