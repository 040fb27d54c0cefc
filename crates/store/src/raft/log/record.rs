//! Records: the format of the contents of a segment.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32 of the rest, seeded with the segment's salt |
//! | 4 | length of the payload |
//! | 4 | `durable`: the place in the segment before which everything was on disk when this record was written |
//! | 1 | kind |
//! | 3 | magic bytes of a record |
//! | … | the payload, then zeros up to a multiple of eight |
//!
//! Numbers are little endian. `durable` distinguishes a torn write from damage: everything before the `durable` of any
//! later record had been synced, and may have been acknowledged. A batch cannot prove its own sync. The next batch does,
//! with its own sync; when none follows, a record is written for this purpose alone: see
//! [`LogDisk::prove_durable`](super::disk::LogDisk::prove_durable).

use std::io;

pub const HEADER_BYTES: usize = 16;
/// Alignment of the records in a segment.
pub const ALIGNMENT: usize = 8;
const MARK: [u8; 3] = [0x51, 0x6c, 0x67];

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// The state of the log when the segment was begun.
    Head = 1,
    Entry = 2,
    /// All entries after an id are removed.
    Truncate = 3,
    Vote = 4,
    Committed = 5,
    /// All entries up to an id are removed.
    Purge = 6,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            RecordKind::Head,
            RecordKind::Entry,
            RecordKind::Truncate,
            RecordKind::Vote,
            RecordKind::Committed,
            RecordKind::Purge,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A header whose checksum is not verified yet; [`Header::payload`] verifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    crc: u32,
    pub length: usize,
    pub durable: u32,
    pub kind: RecordKind,
}

impl Header {
    /// Reads a header from the beginning of `bytes`; `None` when there is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[13..] != MARK {
            return None;
        }
        Some(Header {
            crc: number(0),
            length: usize::try_from(number(4)).ok()?,
            durable: number(8),
            kind: RecordKind::from_byte(header[12])?,
        })
    }

    /// Returns the size of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        (HEADER_BYTES + self.length).next_multiple_of(ALIGNMENT)
    }

    /// Returns the payload of `record`, which begins with this header; `None` when the record is cut or damaged.
    #[must_use]
    pub fn payload<'a>(&self, record: &'a [u8], salt: u32) -> Option<&'a [u8]> {
        let end = HEADER_BYTES + self.length;
        let covered = record.get(4..end)?;
        (checksum(salt, covered) == self.crc).then(|| &record[HEADER_BYTES..end])
    }
}

/// Appends a record to `buffer` without checksum and `durable`, which [`seal`] adds. Returns its start.
///
/// # Errors
/// When the payload cannot be encoded or is too long.
pub fn append(
    buffer: &mut Vec<u8>,
    kind: RecordKind,
    payload: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<usize> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 12]);
    buffer.push(kind as u8);
    buffer.extend_from_slice(&MARK);
    payload(buffer)?;
    let length = u32::try_from(buffer.len() - start - HEADER_BYTES).map_err(io::Error::other)?;
    buffer[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
    Ok(start)
}

/// Completes the record that begins at `start`.
pub fn seal(buffer: &mut [u8], start: usize, durable: u32, salt: u32) {
    buffer[start + 8..start + 12].copy_from_slice(&durable.to_le_bytes());
    let length = Header::read(&buffer[start..]).map_or(0, |header| header.length);
    let crc = checksum(salt, &buffer[start + 4..start + HEADER_BYTES + length]);
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut buffer = vec![7; ALIGNMENT];
        let start = append(&mut buffer, RecordKind::Vote, |buffer| {
            buffer.extend_from_slice(payload);
            Ok(())
        });
        let start = start.expect("short");
        seal(&mut buffer, start, 40, 9);
        buffer.split_off(start)
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        for length in [0, 1, 7, 8, 9, 1000] {
            let payload = vec![3; length];
            let record = record(&payload);
            assert_eq!(record.len() % ALIGNMENT, 0);
            let header = Header::read(&record).expect("a header");
            assert_eq!((header.kind, header.durable, header.record_bytes()), (RecordKind::Vote, 40, record.len()));
            assert_eq!(header.payload(&record, 9), Some(&payload[..]));
            assert_eq!(header.payload(&record, 8), None, "the salt of another segment");
        }
    }

    #[test]
    fn any_changed_or_missing_bit_is_detected() {
        let payload = [5; 21];
        let record = record(&payload);
        for bit in 0..(HEADER_BYTES + payload.len()) * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = Header::read(&damaged).and_then(|header| header.payload(&damaged, 9).map(<[u8]>::to_vec));
            assert_eq!(found, None, "bit {bit}");
        }
        for cut in 0..HEADER_BYTES + payload.len() {
            let found = Header::read(&record[..cut]).and_then(|header| header.payload(&record[..cut], 9));
            assert_eq!(found, None, "cut at {cut}");
        }
        assert_eq!(Header::read(&[0; 64]), None);
    }
}
