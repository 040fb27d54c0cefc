//! The wire format of Protocol Buffers: tagged fields, without their meaning.

/// The value of a field, typed as far as its tag tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("unexpected end")]
    Truncated,
    #[error("a number of more than 64 bits")]
    Overflow,
    #[error("illegal tag {0}")]
    Tag(u64),
}

/// Iterates over the fields of a message in wire order; it ends after the first error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
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
pub struct Writer(Vec<u8>);

impl Writer {
    #[must_use]
    pub fn varint(mut self, number: u32, value: u64) -> Self {
        self.put_varint(number, value);
        self
    }

    /// Writes a string, bytes, or a message.
    #[must_use]
    pub fn bytes(mut self, number: u32, bytes: impl AsRef<[u8]>) -> Self {
        self.put_bytes(number, bytes.as_ref());
        self
    }

    pub fn put_varint(&mut self, number: u32, value: u64) {
        push(&mut self.0, u64::from(number) << 3);
        push(&mut self.0, value);
    }

    pub fn put_double(&mut self, number: u32, value: f64) {
        push(&mut self.0, u64::from(number) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn put_bytes(&mut self, number: u32, bytes: &[u8]) {
        push(&mut self.0, u64::from(number) << 3 | 2);
        push(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Starts a message whose length is not known yet.
    pub fn begin(&mut self, number: u32) -> Begun {
        push(&mut self.0, u64::from(number) << 3 | 2);
        Begun(self.0.len())
    }

    /// Ends the message: puts its length in front of it.
    pub fn end(&mut self, begun: Begun) {
        let Begun(start) = begun;
        let end = self.0.len();
        let mut length = Vec::with_capacity(10);
        push(&mut length, (end - start) as u64);
        self.0.extend_from_slice(&length);
        self.0.copy_within(start..end, start + length.len());
        self.0[start..start + length.len()].copy_from_slice(&length);
    }
}

/// A message that is being written, by the place of its length.
#[derive(Debug)]
#[must_use]
pub struct Begun(usize);

fn push(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
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
