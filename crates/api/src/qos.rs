//! The quality of service class of a pod, derived from its containers' requests and limits.

use crate::quantity::Quantity;

/// The request and limit of one container for one resource, in their written form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts<'a> {
    pub request: Option<&'a str>,
    pub limit: Option<&'a str>,
}

/// Returns the class. `Guaranteed`: every container limits cpu and memory, and requests equal limits. `BestEffort`: no
/// container requests or limits either. `Burstable`: all others. An amount of zero requests or limits nothing.
/// is no limit.
///
/// Each container, init containers included, passes its amounts of cpu and of memory.
#[must_use]
pub fn class<'a>(containers: impl IntoIterator<Item = [Amounts<'a>; 2]>) -> &'static str {
    let amount = |text: Option<&str>| text.and_then(|text| Quantity::parse(text).ok());
    let (mut any, mut guaranteed) = (false, true);
    for Amounts { request, limit } in containers.into_iter().flatten() {
        let (request, limit) = (amount(request), amount(limit).filter(|limit| !limit.is_zero()));
        any |= request.is_some_and(|request| !request.is_zero()) || limit.is_some();
        // The API sets a missing request to the limit.
        guaranteed &= limit.is_some() && request.or(limit) == limit;
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(request: &'static str, limit: &'static str) -> Amounts<'static> {
        let given = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        Amounts { request: given(request), limit: given(limit) }
    }

    #[test]
    fn zero_is_neither_a_request_nor_a_limit() {
        let none = amounts("", "");
        let cases = [
            (vec![], "BestEffort"),
            (vec![[none, none]], "BestEffort"),
            (vec![[amounts("", "0"), amounts("", "0")]], "BestEffort"),
            (vec![[amounts("0", "0"), amounts("0m", "0Ki")]], "BestEffort"),
            (vec![[amounts("", "1"), amounts("", "1Gi")]], "Guaranteed"),
            (vec![[amounts("1000m", "1"), amounts("1024Mi", "1Gi")]], "Guaranteed"),
            (vec![[amounts("0", "1"), amounts("", "1Gi")]], "Burstable"),
            (vec![[amounts("", "1"), amounts("", "0")]], "Burstable"),
            (vec![[amounts("500m", "1"), amounts("", "1Gi")]], "Burstable"),
            (vec![[amounts("1", ""), none]], "Burstable"),
            (vec![[amounts("", "1"), amounts("", "1Gi")], [none, none]], "Burstable"),
        ];
        for (containers, expected) in cases {
            assert_eq!(class(containers.clone()), expected, "{containers:?}");
        }
    }
}
