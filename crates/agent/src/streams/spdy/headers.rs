//! The compressed header blocks of SPDY/3. One compression state serves a whole connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::FrameError;
use super::dictionary;

/// Maximum size of an inflated header block, in bytes.
const MAX_BLOCK_BYTES: usize = 64 * 1024;

/// Inflates the client's header blocks.
pub(super) struct Inflater {
    state: Decompress,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Inflater { state: Decompress::new(true) }
    }

    /// Returns the headers of a block, in the client's order.
    ///
    /// # Errors
    /// When the block is malformed or too large.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, FrameError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, FrameError> {
        let (mut inflated, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let (read, made) = (self.state.total_in(), self.state.total_out());
            let result = self.state.decompress(block, &mut chunk, FlushDecompress::Sync);
            let moved = |from: u64, to: u64| usize::try_from(to - from).unwrap_or(usize::MAX);
            let (read, made) = (moved(read, self.state.total_in()), moved(made, self.state.total_out()));
            block = &block[read.min(block.len())..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.state.set_dictionary(&dictionary::bytes()).map_err(|_| FrameError::Headers)?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(_) => {}
            }
            inflated.extend_from_slice(&chunk[..made.min(chunk.len())]);
            if inflated.len() > MAX_BLOCK_BYTES {
                return Err(FrameError::Headers);
            }
            if block.is_empty() && made < chunk.len() {
                return Ok(inflated);
            }
            if read == 0 && made == 0 {
                return Err(FrameError::Headers);
            }
        }
    }
}

/// Splits a length-prefixed block: a count, and that many names and values.
fn parse(block: &[u8]) -> Result<Vec<(String, String)>, FrameError> {
    fn number(block: &mut &[u8]) -> Result<usize, FrameError> {
        let (head, rest) = block.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
        *block = rest;
        usize::try_from(u32::from_be_bytes(*head)).map_err(|_| FrameError::Headers)
    }
    fn text(block: &mut &[u8]) -> Result<String, FrameError> {
        let length = number(block)?;
        let (head, rest) = block.split_at_checked(length).ok_or(FrameError::Headers)?;
        *block = rest;
        String::from_utf8(head.to_vec()).map_err(|_| FrameError::Headers)
    }
    let mut rest = block;
    let count = number(&mut rest)?;
    let mut headers = Vec::new();
    // A count that lies ends with the block.
    for _ in 0..count {
        headers.push((text(&mut rest)?, text(&mut rest)?));
    }
    if rest.is_empty() { Ok(headers) } else { Err(FrameError::Headers) }
}

/// Compresses our header blocks.
pub(super) struct Deflater {
    state: Compress,
}

impl Deflater {
    /// # Errors
    /// When the compression library refuses the dictionary.
    pub(super) fn new() -> Result<Self, FrameError> {
        let mut state = Compress::new(Compression::fast(), true);
        state.set_dictionary(&dictionary::bytes()).map_err(|_| FrameError::Headers)?;
        Ok(Deflater { state })
    }

    /// # Errors
    /// When the compression library fails.
    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, FrameError> {
        let mut block = Vec::new();
        let number = |block: &mut Vec<u8>, length: usize| {
            u32::try_from(length).map(|length| block.extend(length.to_be_bytes())).map_err(|_| FrameError::Headers)
        };
        number(&mut block, headers.len())?;
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            number(&mut block, text.len())?;
            block.extend(text.as_bytes());
        }
        // Room for what cannot be compressed, so that one call takes the whole block.
        let mut deflated = Vec::with_capacity(2 * block.len() + 128);
        let before = self.state.total_in();
        self.state.compress_vec(&block, &mut deflated, FlushCompress::Sync).map_err(|_| FrameError::Headers)?;
        let is_whole = usize::try_from(self.state.total_in() - before) == Ok(block.len());
        if is_whole { Ok(deflated) } else { Err(FrameError::Headers) }
    }
}
