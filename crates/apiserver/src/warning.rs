//! Limits on the warnings of a response, so that its headers stay within what clients and proxies accept.
//!
//! The limits are those of Kubernetes' `WithWarningRecorder`: all warnings are sent whole while they are short together;
//! otherwise each is cut, and the rest is dropped once the cut ones reach the limit.

use std::collections::HashSet;

/// Number of characters of all warnings together up to which none is cut.
const MAX_CHARS: usize = 4 * 1024;
/// Maximum number of characters of one warning when they are cut.
const MAX_CUT_CHARS: usize = 256;

/// Returns the warnings to send: each once, without control characters, and within the limits.
pub(crate) fn limited(warnings: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let printable = |warning: &String| warning.chars().filter(|c| !c.is_control()).collect::<String>();
    let distinct = warnings.iter().filter(|warning| seen.insert(*warning)).map(printable);
    let distinct: Vec<String> = distinct.filter(|warning| !warning.is_empty()).collect();
    if distinct.iter().map(|warning| warning.chars().count()).sum::<usize>() <= MAX_CHARS {
        return distinct;
    }
    let mut sent = 0;
    let mut limited = Vec::new();
    for warning in distinct {
        if sent >= MAX_CHARS {
            break;
        }
        let cut: String = warning.chars().take(MAX_CUT_CHARS).collect();
        sent += cut.chars().count();
        limited.push(cut);
    }
    limited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_warnings_are_sent_whole_and_once() {
        let long = "x".repeat(1000);
        let warnings = ["a", "b\n", "a", "", long.as_str()].map(str::to_owned);
        assert_eq!(limited(&warnings), ["a", "b", long.as_str()]);
    }

    #[test]
    fn warnings_over_the_limit_are_cut_and_dropped() {
        let warnings: Vec<String> = (0..100).map(|i| format!("{i:03}{}", "ü".repeat(1000))).collect();
        let limited = limited(&warnings);
        assert_eq!(limited.len(), MAX_CHARS / MAX_CUT_CHARS);
        assert!(limited.iter().all(|warning| warning.chars().count() == MAX_CUT_CHARS), "{limited:?}");
        assert!(limited[15].starts_with("015"), "{limited:?}");
        let short: Vec<String> = (0..10_000).map(|i| format!("{i:08}")).collect();
        assert_eq!(super::limited(&short).len(), MAX_CHARS / 8);
    }
}
