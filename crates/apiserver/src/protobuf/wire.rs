//! The wire format of Protocol Buffers: tagged fields, without their meaning.

/// The value of a field, typed as far as its tag tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum WireError {
    #[error("unexpected end")]
    Truncated,
    #[error("a number of more than 64 bits")]
    Overflow,
    #[error("illegal tag {0}")]
    Tag(u64),
}

/// Iterates over the fields of a message in wire order; it ends after the first error.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), WireError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n)).ok_or(WireError::Tag(tag))?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(usize::try_from(length).map_err(|_| WireError::Truncated)?)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups, which Kubernetes does not use, and tags that do not exist.
            _ => return Err(WireError::Tag(tag)),
        };
        Ok((number, value))
    }

    /// Reads the next number without a tag, as in a packed list; `None` at the end.
    pub fn packed(&mut self) -> Option<Result<u64, WireError>> {
        if self.rest.is_empty() { None } else { Some(self.varint()) }
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for index in 0..10 {
            let (&byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
            self.rest = rest;
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Wire<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Writes a message, field by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub fn varint(mut self, number: u32, value: u64) -> Self {
        self.push(u64::from(number) << 3);
        self.push(value);
        self
    }

    /// Writes a string, bytes, or a message.
    pub fn bytes(mut self, number: u32, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.push(u64::from(number) << 3 | 2);
        self.push(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Writer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Writer> for Vec<u8> {
    fn from(writer: Writer) -> Self {
        writer.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &[Result<(u32, Wire<'_>), WireError>]) {
        assert_eq!(Reader::new(bytes).collect::<Vec<_>>(), expected, "{bytes:?}");
    }

    #[test]
    fn fields_are_read() {
        check(&[], &[]);
        check(&[0x08, 0x96, 0x01], &[Ok((1, Wire::Varint(150)))]);
        check(&[0x12, 2, b'h', b'i', 0x18, 1], &[Ok((2, Wire::Bytes(b"hi"))), Ok((3, Wire::Varint(1)))]);
        check(&[0x0d, 1, 0, 0, 0], &[Ok((1, Wire::Fixed32(1)))]);
        check(&[0x09, 1, 0, 0, 0, 0, 0, 0, 0], &[Ok((1, Wire::Fixed64(1)))]);
        let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        check(&minus_one, &[Ok((1, Wire::Varint(u64::MAX)))]);
    }

    #[test]
    fn malformed_fields_are_refused() {
        check(&[0x08], &[Err(WireError::Truncated)]);
        check(&[0x08, 0x80], &[Err(WireError::Truncated)]);
        check(&[0x0d, 1, 0, 0], &[Err(WireError::Truncated)]);
        check(&[0x12, 3, b'h', b'i'], &[Err(WireError::Truncated)]);
        check(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[Err(WireError::Truncated)]);
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &[Err(WireError::Overflow)]);
        check(&[0x00, 1], &[Err(WireError::Tag(0))]);
        check(&[0x0b, 1], &[Err(WireError::Tag(11))]);
    }
}
