//! Logs from a moment on. Docker begins them at a full second; what is too early in it is left out here. Pure.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

/// The lines of a piece of a log that are not from before `since`. Each begins with its time and a blank, which stay only
/// where times are wanted; a line whose beginning was in the piece before has none, and belongs to that one.
pub(super) fn from_time_on(piece: &[u8], since: Timestamp, with_times: bool) -> Bytes {
    let mut kept = BytesMut::with_capacity(piece.len());
    for line in piece.split_inclusive(|byte| *byte == b'\n') {
        match split_time(line) {
            Some((time, _)) if time < since => {}
            Some((_, text)) if !with_times => kept.extend_from_slice(text),
            _ => kept.extend_from_slice(line),
        }
    }
    kept.freeze()
}

fn split_time(line: &[u8]) -> Option<(Timestamp, &[u8])> {
    let blank = line.iter().position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&line[..blank]).ok()?.parse().ok()?;
    Some((time, &line[blank + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_lines_are_left_out() {
        let since = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        let early = "2026-01-02T03:04:05.499999999Z early\n";
        let late = "2026-01-02T03:04:05.5Z late\n";
        let cases = [
            (format!("{early}{late}"), true, late),
            (format!("{early}{late}"), false, "late\n"),
            (format!("{early}{early}"), false, ""),
            ("the end of a line\n".to_owned(), false, "the end of a line\n"),
            ("2026-01-02T03:04:06Z \n".to_owned(), false, "\n"),
        ];
        for (piece, with_times, kept) in cases {
            assert_eq!(from_time_on(piece.as_bytes(), since, with_times), kept, "{piece}");
        }
    }
}
