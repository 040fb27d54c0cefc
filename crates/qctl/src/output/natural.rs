//! Natural order of names with numbers: `node-2` before `node-10`.

use std::cmp::Ordering;

/// Compares runs of digits as numbers and the rest by character.
#[must_use]
pub fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let (Some(a), Some(b)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len());
        };
        if a.is_ascii_digit() && b.is_ascii_digit() {
            let (number, rest) = digits(left);
            let (other, other_rest) = digits(right);
            let (significant, other_significant) = (number.trim_start_matches('0'), other.trim_start_matches('0'));
            let order = significant
                .len()
                .cmp(&other_significant.len())
                .then_with(|| significant.cmp(other_significant))
                .then_with(|| number.len().cmp(&other.len()));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (rest, other_rest);
        } else if a == b {
            (left, right) = (&left[a.len_utf8()..], &right[b.len_utf8()..]);
        } else {
            return a.cmp(&b);
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_compared_as_numbers() {
        assert_eq!(natural_order("node-2", "node-10"), Ordering::Less);
        assert_eq!(natural_order("a", "b"), Ordering::Less);
        assert_eq!(natural_order("a1", "a1"), Ordering::Equal);
        assert_eq!(natural_order("a01b", "a1a"), Ordering::Greater);
    }
}
