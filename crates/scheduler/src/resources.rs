//! Amounts of resources as integers, parsed once from quantities.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use quorate_api::quantity::Quantity;

/// A resource list that cannot be parsed. Validation keeps such lists out of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: \"{value}\" is not a quantity")]
pub struct ParseError {
    pub resource: String,
    pub value: String,
}

/// Resources that a pod requests or a node has. `extended` never contains zero amounts, so equal resources compare
/// equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
    /// Every other resource (extended resources, huge pages), sorted by name.
    pub(crate) extended: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Parses a resource list. `pods` is left out, because no pod requests it; see [`pod_capacity`].
    ///
    /// # Errors
    /// Fails when an amount is not a quantity.
    pub fn parse(list: Option<&BTreeMap<String, WireQuantity>>) -> Result<Resources, ParseError> {
        let mut resources = Resources::default();
        for (name, quantity) in list.into_iter().flatten() {
            let parsed = parse_quantity(name, quantity)?;
            match name.as_str() {
                "pods" => {}
                "cpu" => resources.milli_cpu = saturate(parsed.milli_value()),
                "memory" => resources.memory_bytes = saturate(parsed.value()),
                "ephemeral-storage" => resources.ephemeral_storage_bytes = saturate(parsed.value()),
                other => resources.set_extended(other, saturate(parsed.value())),
            }
        }
        Ok(resources)
    }

    /// Returns the amount of an extended resource.
    #[must_use]
    pub fn extended(&self, name: &str) -> i64 {
        self.position(name).map_or(0, |index| self.extended[index].1)
    }

    /// Iterates over the extended resources with nonzero amounts.
    pub fn extended_amounts(&self) -> impl Iterator<Item = (&Arc<str>, i64)> {
        self.extended.iter().map(|(name, amount)| (name, *amount))
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Resources::default()
    }

    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to that of `other` where the latter is greater.
    pub fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    /// Lowers each amount that is greater than `most` to `most`.
    pub fn cap(&mut self, most: i64) {
        for amount in [&mut self.milli_cpu, &mut self.memory_bytes, &mut self.ephemeral_storage_bytes] {
            *amount = most.min(*amount);
        }
        for (_, amount) in &mut self.extended {
            *amount = most.min(*amount);
        }
    }

    pub(crate) fn set_extended(&mut self, name: &str, amount: i64) {
        match (self.position(name), amount) {
            (Ok(index), 0) => {
                self.extended.remove(index);
            }
            (Ok(index), _) => self.extended[index].1 = amount,
            (Err(_), 0) => {}
            (Err(index), _) => self.extended.insert(index, (Arc::from(name), amount)),
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.extended.binary_search_by(|(candidate, _)| candidate.as_ref().cmp(name))
    }

    fn combine(&mut self, other: &Resources, operation: fn(i64, i64) -> i64) {
        self.milli_cpu = operation(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = operation(self.memory_bytes, other.memory_bytes);
        self.ephemeral_storage_bytes = operation(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
        for (name, amount) in &other.extended {
            let amount = operation(self.extended(name), *amount);
            self.set_extended(name, amount);
        }
    }
}

/// Returns the number of pods that a node takes: `pods` of its resource list, or 0 when absent, as in kube-scheduler.
///
/// # Errors
/// Fails when the amount is not a quantity.
pub fn pod_capacity(list: Option<&BTreeMap<String, WireQuantity>>) -> Result<i64, ParseError> {
    match list.and_then(|list| list.get("pods")) {
        Some(quantity) => Ok(saturate(parse_quantity("pods", quantity)?.value())),
        None => Ok(0),
    }
}

fn parse_quantity(resource: &str, quantity: &WireQuantity) -> Result<Quantity, ParseError> {
    Quantity::parse(&quantity.0).map_err(|_| ParseError { resource: resource.to_owned(), value: quantity.0.clone() })
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &str)]) -> BTreeMap<String, WireQuantity> {
        entries.iter().map(|(name, amount)| ((*name).to_owned(), WireQuantity((*amount).to_owned()))).collect()
    }

    #[test]
    fn quantities_become_integers() {
        let list = list(&[
            ("cpu", "1500m"),
            ("memory", "1Gi"),
            ("ephemeral-storage", "2G"),
            ("pods", "110"),
            ("example.com/gpu", "2"),
            ("hugepages-2Mi", "0"),
        ]);
        let resources = Resources::parse(Some(&list)).expect("a valid list");
        assert_eq!(resources.milli_cpu, 1500);
        assert_eq!(resources.memory_bytes, 1 << 30);
        assert_eq!(resources.ephemeral_storage_bytes, 2_000_000_000);
        assert_eq!(resources.extended("example.com/gpu"), 2);
        assert_eq!(resources.extended_amounts().count(), 1, "zero amounts are left out");
        assert_eq!(pod_capacity(Some(&list)), Ok(110));
    }

    #[test]
    fn invalid_quantities_are_named_in_the_error() {
        let error = Resources::parse(Some(&list(&[("cpu", "lots")]))).expect_err("not a quantity");
        assert_eq!(error.to_string(), "cpu: \"lots\" is not a quantity");
    }

    #[test]
    fn subtracting_what_was_added_restores_the_amounts() {
        let mut total = Resources::parse(Some(&list(&[("cpu", "1"), ("a/x", "1")]))).expect("valid");
        let before = total.clone();
        let more = Resources::parse(Some(&list(&[("memory", "1Mi"), ("a/y", "3")]))).expect("valid");
        total.add(&more);
        assert_eq!(total.extended("a/y"), 3);
        total.subtract(&more);
        assert_eq!(total, before);
    }
}
