//! Label and field selectors, as query parameters have them. Input: the text.

use std::collections::BTreeMap;

use quorate_api::{FieldSelector, LabelSelector};

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        check_labels(&selector);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let printed = selector.to_string();
        let again = FieldSelector::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
        assert_eq!(again, selector, "{printed:?}");
    }
}

fn check_labels(selector: &LabelSelector) {
    let printed = selector.to_string();
    let again = LabelSelector::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
    assert_eq!(again, *selector, "{printed:?}");
    for labels in labels_about(selector) {
        let every = selector.requirements().iter().all(|r| r.matches(labels.get(r.key()).map(String::as_str)));
        assert_eq!(selector.matches(&labels), every, "{printed:?} of {labels:?}");
    }
}

/// Returns labels that the requirements speak of: none, the first value of each, and other values.
fn labels_about(selector: &LabelSelector) -> [BTreeMap<String, String>; 3] {
    let with = |value: fn(&str) -> String| {
        let requirements = selector.requirements().iter();
        requirements.map(|r| (r.key().to_owned(), value(r.values().next().unwrap_or_default()))).collect()
    };
    [BTreeMap::new(), with(str::to_owned), with(|value| format!("{value}0"))]
}
