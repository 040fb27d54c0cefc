//! Parses Docker's log stream as it arrives. Only an incomplete header or timestamp is buffered, so memory is bounded
//! even for an endless line or a terminal's log that looks like headers. Pure.

use bytes::Bytes;
use jiff::Timestamp;

const HEADER: usize = 8;
/// Maximum length of a timestamp at the beginning of a line, in bytes.
const TIME: usize = 48;
/// Size of the pieces into which Docker splits a longer line, in bytes.
const PIECE: usize = 16 * 1024;

/// Handling of timestamps. Docker filters lines by full seconds only, so `since` is applied again here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Lines before this time are dropped.
    pub since: Option<Timestamp>,
    /// Whether the timestamp is kept at the beginning of each line.
    pub keep: bool,
}

/// The end of a log that is wanted. Docker counts pieces of lines, so its answer begins earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Number of lines to drop, of those that begin in the answer.
    pub skip: u64,
    /// The answer may begin in the middle of a line, which is dropped then.
    pub begins_anywhere: bool,
}

/// The pieces and lines of a log that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Pieces with a timestamp.
    pub pieces: u64,
    /// Lines that begin in the answer.
    pub lines: u64,
    /// Streams whose first piece may be the middle of a line.
    pub unknown: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// A timestamp comes next and has not been read completely. `continues` means that it is in the middle of a line.
    Time {
        continues: bool,
    },
    Text,
}

/// Parser state of one of a container's streams: its position in a line, and whether that line is wanted.
#[derive(Clone, Debug)]
struct Track {
    line: Line,
    time: Vec<u8>,
    wanted: bool,
    mid_line: bool,
    /// No piece has been read yet.
    is_new: bool,
    /// Size of the text of this piece, in bytes.
    text: usize,
}

impl Track {
    fn new(begins_anywhere: bool) -> Self {
        Track {
            line: Line::Time { continues: begins_anywhere },
            time: Vec::new(),
            wanted: !begins_anywhere,
            mid_line: begins_anywhere,
            is_new: begins_anywhere,
            text: 0,
        }
    }

    fn begin_piece(&mut self) {
        self.line = Line::Time { continues: self.mid_line };
        self.time.clear();
        self.text = 0;
    }

    fn feed(&mut self, mut bytes: &[u8], times: Times, framed: bool, counted: &mut Counted, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match self.line {
                Line::Time { continues } => bytes = self.read_time(bytes, continues, times, counted, out),
                // Without a frame, only the size shows that a line is continued in another piece.
                Line::Text if !framed && self.text == PIECE => self.begin_piece(),
                Line::Text => {
                    let room = if framed { bytes.len() } else { bytes.len().min(PIECE - self.text) };
                    let end = bytes[..room].iter().position(|byte| *byte == b'\n').map_or(room, |at| at + 1);
                    let (text, rest) = bytes.split_at(end);
                    self.text = self.text.saturating_add(text.len()).min(PIECE);
                    self.mid_line = text.last() != Some(&b'\n');
                    if self.wanted {
                        out.extend_from_slice(text);
                    }
                    // A framed piece is one log entry, which has a timestamp only at its beginning.
                    if !self.mid_line && !framed {
                        self.begin_piece();
                    }
                    bytes = rest;
                }
            }
        }
    }

    /// Reads the timestamp up to the blank after it, and returns the remaining bytes.
    fn read_time<'a>(
        &mut self,
        bytes: &'a [u8],
        continues: bool,
        times: Times,
        counted: &mut Counted,
        out: &mut Vec<u8>,
    ) -> &'a [u8] {
        let room = TIME - self.time.len();
        let blank = bytes.iter().take(room).position(|byte| matches!(byte, b' ' | b'\n'));
        let taken = blank.map_or(bytes.len().min(room), |at| if bytes[at] == b' ' { at + 1 } else { at });
        self.time.extend_from_slice(&bytes[..taken]);
        let is_whole = blank.is_some() || self.time.len() == TIME;
        if is_whole {
            let text = std::str::from_utf8(&self.time).ok();
            let time: Option<Timestamp> = text.and_then(|text| text.trim_end().parse().ok());
            counted.count.pieces += 1;
            if !continues {
                counted.count.lines += 1;
                self.wanted = counted.count.lines > counted.skip
                    && match (time, times.since) {
                        (Some(time), Some(since)) => time >= since,
                        _ => true,
                    };
            } else if self.is_new {
                counted.count.unknown += 1;
            }
            self.is_new = false;
            // Docker repeats the timestamp in the middle of a long line.
            let shows = time.is_none() || times.keep && !continues;
            if self.wanted && shows {
                out.extend_from_slice(&self.time);
            }
            self.time.clear();
            self.line = Line::Text;
        }
        &bytes[taken..]
    }
}

/// The lines so far, of both streams, and how many of them are not wanted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    count: Count,
    skip: u64,
}

/// Parses a log stream chunk by chunk.
#[derive(Clone, Debug)]
pub(super) struct Demux {
    /// Whether the stream has headers. A terminal's stream has none.
    framed: bool,
    times: Option<Times>,
    header: Vec<u8>,
    left: usize,
    stream: usize,
    tracks: [Track; 2],
    counted: Counted,
}

impl Demux {
    /// A `tail` needs timestamps, which mark the pieces of lines.
    pub(super) fn new(framed: bool, times: Option<Times>, tail: Option<Tail>) -> Self {
        let Tail { skip, begins_anywhere } = tail.unwrap_or(Tail { skip: 0, begins_anywhere: false });
        let track = || Track::new(begins_anywhere);
        let counted = Counted { count: Count::default(), skip };
        Demux { framed, times, header: Vec::new(), left: 0, stream: 0, tracks: [track(), track()], counted }
    }

    pub(super) fn count(&self) -> Count {
        self.counted.count
    }

    /// Parses a chunk and returns the log's bytes in it.
    pub(super) fn feed(&mut self, chunk: Bytes) -> Bytes {
        if !self.framed && self.times.is_none() {
            return chunk;
        }
        let mut out = Vec::with_capacity(chunk.len());
        let mut rest = &chunk[..];
        if !self.framed {
            self.text(rest, &mut out);
            return out.into();
        }
        while !rest.is_empty() {
            if self.left == 0 {
                let (head, after) = rest.split_at(rest.len().min(HEADER - self.header.len()));
                self.header.extend_from_slice(head);
                rest = after;
                if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                    self.stream = usize::from(stream == 2);
                    self.tracks[self.stream].begin_piece();
                    self.header.clear();
                }
                continue;
            }
            let (text, after) = rest.split_at(rest.len().min(self.left));
            self.left -= text.len();
            self.text(text, &mut out);
            rest = after;
        }
        out.into()
    }

    fn text(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.times {
            Some(times) => self.tracks[self.stream].feed(bytes, times, self.framed, &mut self.counted, out),
            None => out.extend_from_slice(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("a short text");
        [&[stream, 0, 0, 0][..], &length.to_be_bytes(), text.as_bytes()].concat()
    }

    /// Parses the answer in chunks of several sizes, and checks that the result is always the same.
    fn read(framed: bool, times: Option<Times>, answer: &[u8]) -> String {
        read_tail(framed, times, None, answer)
    }

    fn read_tail(framed: bool, times: Option<Times>, tail: Option<Tail>, answer: &[u8]) -> String {
        let mut results = Vec::new();
        for size in [1, 2, 3, 7, 64, answer.len().max(1)] {
            let mut demux = Demux::new(framed, times, tail);
            let pieces = answer.chunks(size).map(|piece| demux.feed(Bytes::copy_from_slice(piece)));
            results.push(String::from_utf8(pieces.collect::<Vec<_>>().concat()).expect("text"));
        }
        results.dedup();
        assert_eq!(results.len(), 1, "the result depends on the size of the chunks: {results:?}");
        results.remove(0)
    }

    #[test]
    fn lines_before_the_given_time_are_dropped() {
        let since = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        let early = "2026-01-02T03:04:05.499999999Z early\n";
        let late = "2026-01-02T03:04:05.5Z late\n";
        let cases = [
            (format!("{early}{late}"), true, late),
            (format!("{early}{late}"), false, "late\n"),
            (format!("{early}{early}"), false, ""),
            ("no time\n".to_owned(), false, "no time\n"),
            ("2026-01-02T03:04:06Z \n".to_owned(), false, "\n"),
            ("\n\n".to_owned(), false, "\n\n"),
        ];
        for (text, keep, kept) in cases {
            let times = Some(Times { since: Some(since), keep });
            assert_eq!(read(false, times, text.as_bytes()), kept, "a terminal: {text}");
            let frames: Vec<u8> = text.split_inclusive('\n').flat_map(|line| frame(1, line)).collect();
            assert_eq!(read(true, times, &frames), kept, "frames: {text}");
        }
    }

    #[test]
    fn the_pieces_of_a_line_are_joined_with_one_timestamp() {
        let time = "2026-01-02T03:04:05Z ";
        let answer = [
            frame(1, &format!("{time}first ")),
            frame(2, &format!("{time}aside\n")),
            frame(1, &format!("{time}second\n")),
            frame(1, &format!("{time}third\n")),
        ];
        let with = Some(Times { since: None, keep: true });
        let expected = format!("{time}first {time}aside\nsecond\n{time}third\n");
        assert_eq!(read(true, with, &answer.concat()), expected);
        let since = Some(Times { since: Some("2026-01-02T03:04:06Z".parse().expect("a time")), keep: false });
        assert_eq!(read(true, since, &answer.concat()), "");
        let plain = [frame(1, "out "), frame(2, "err\n"), frame(1, "more\n")];
        assert_eq!(read(true, None, &plain.concat()), "out err\nmore\n");
    }

    #[test]
    fn a_tail_counts_lines_and_not_their_pieces() {
        let time = "2026-01-02T03:04:05Z ";
        let long = "x".repeat(PIECE);
        // Two pieces of one line, a short line, one line of exactly a piece, and an open end.
        let pieces = [
            long.to_string(),
            "yz\n".to_owned(),
            "short\n".to_owned(),
            long.to_string(),
            "\n".to_owned(),
            "open".to_owned(),
        ];
        let whole = [format!("{long}yz\n"), "short\n".to_owned(), format!("{long}\n"), "open".to_owned()];
        let framed: Vec<u8> = pieces.iter().flat_map(|piece| frame(1, &format!("{time}{piece}"))).collect();
        let raw: Vec<u8> = pieces.iter().flat_map(|piece| format!("{time}{piece}").into_bytes()).collect();
        let times = Some(Times { since: None, keep: false });
        for (is_framed, answer) in [(true, &framed), (false, &raw)] {
            let mut counter = Demux::new(is_framed, times, Some(Tail { skip: u64::MAX, begins_anywhere: true }));
            assert_eq!(counter.feed(Bytes::copy_from_slice(answer)), Bytes::new());
            // The first piece may continue an earlier line.
            assert_eq!(counter.count(), Count { pieces: 6, lines: 3, unknown: 1 }, "framed: {is_framed}");
            for skip in 0..=4 {
                let tail = Some(Tail { skip: skip as u64, begins_anywhere: false });
                assert_eq!(read_tail(is_framed, times, tail, answer), whole[skip..].concat(), "framed: {is_framed}");
            }
            let tail = Some(Tail { skip: 1, begins_anywhere: true });
            assert_eq!(read_tail(is_framed, times, tail, answer), whole[2..].concat(), "framed: {is_framed}");
        }
    }

    #[test]
    fn a_tail_drops_the_rest_of_earlier_lines_on_the_other_stream() {
        let time = "2026-01-02T03:04:05Z ";
        let answer = [
            frame(1, &format!("{time}first, ")),
            frame(2, &format!("{time}second\n")),
            frame(1, &format!("{time}its end\n")),
            frame(2, &format!("{time}third\n")),
        ];
        let times = Some(Times { since: None, keep: false });
        let last = |skip| read_tail(true, times, Some(Tail { skip, begins_anywhere: false }), &answer.concat());
        assert_eq!((last(1), last(2)), ("second\nthird\n".to_owned(), "third\n".to_owned()));
    }

    #[test]
    fn an_endless_line_is_passed_on_without_buffering() {
        let long = "x".repeat(1 << 16);
        for times in [None, Some(Times { since: Some(Timestamp::UNIX_EPOCH), keep: true })] {
            assert_eq!(read(false, times, long.as_bytes()), long);
            let mut demux = Demux::new(true, times, None);
            let mut huge = frame(1, "");
            huge[4..].copy_from_slice(&u32::MAX.to_be_bytes());
            demux.feed(huge.into());
            let passed: usize = (0..64).map(|_| demux.feed(Bytes::from_static(&[b'x'; 1024])).len()).sum();
            assert_eq!(passed, 64 * 1024, "the bytes of an incomplete piece are passed on");
            assert!(demux.header.is_empty() && demux.tracks.iter().all(|track| track.time.len() < TIME));
        }
        let forged = b"\x01\0\0\0\xff\xff\xff\xffnot a header";
        let passed = Demux::new(false, None, None).feed(Bytes::from_static(forged));
        assert_eq!(passed, forged[..], "a terminal's log has no headers");
    }
}
