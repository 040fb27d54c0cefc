//! Input and output of a command: the terminal, or buffers in tests.

use std::io::{IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{CliError, Result};

/// Standard input, output and error of a command.
pub struct Streams {
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
    errors: Box<dyn Write + Send>,
    /// Whether the output is a terminal, so that progress may be drawn.
    pub interactive: bool,
    /// Whether the input is a terminal, so that it may become the one of a remote command.
    pub input_is_terminal: bool,
}

impl Streams {
    /// Returns the streams of this process.
    #[must_use]
    pub fn process() -> Self {
        Streams {
            input: Box::new(std::io::stdin()),
            output: Box::new(std::io::BufWriter::new(std::io::stdout())),
            errors: Box::new(std::io::stderr()),
            interactive: std::io::stdout().is_terminal(),
            input_is_terminal: std::io::stdin().is_terminal(),
        }
    }

    /// Creates buffers. The command reads `input`, and the two captures get its output and errors.
    #[must_use]
    pub fn captured(input: impl Into<Vec<u8>>) -> (Self, Capture, Capture) {
        let (output, errors) = (Capture::default(), Capture::default());
        let streams = Streams {
            input: Box::new(std::io::Cursor::new(input.into())),
            output: Box::new(output.clone()),
            errors: Box::new(errors.clone()),
            interactive: false,
            input_is_terminal: false,
        };
        (streams, output, errors)
    }

    /// Prints one line.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        let text = text.as_ref();
        self.output
            .write_all(text.as_bytes())
            .and_then(|()| self.output.write_all(b"\n"))
            .map_err(|source| CliError::io("writing the output", source))
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        self.output.write_all(text.as_ref()).map_err(|source| CliError::io("writing the output", source))
    }

    /// Prints one line to standard error.
    ///
    /// # Errors
    /// When standard error is closed.
    pub fn note(&mut self, text: impl AsRef<str>) -> Result<()> {
        self.flush()?;
        writeln!(self.errors, "{}", text.as_ref()).map_err(|source| CliError::io("writing to standard error", source))
    }

    /// Prints bytes to standard error as they are.
    ///
    /// # Errors
    /// When standard error is closed.
    pub fn error_text(&mut self, bytes: &[u8]) -> Result<()> {
        self.errors.write_all(bytes).map_err(|source| CliError::io("writing to standard error", source))
    }

    /// Takes standard input away, for a thread that reads it while the command runs.
    pub fn take_input(&mut self) -> Box<dyn Read + Send> {
        std::mem::replace(&mut self.input, Box::new(std::io::empty()))
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(|source| CliError::io("writing the output", source))
    }

    /// Reads all of standard input.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8.
    pub fn read_input(&mut self) -> Result<String> {
        let mut text = String::new();
        self.input.read_to_string(&mut text).map_err(|source| CliError::io("reading standard input", source))?;
        Ok(text)
    }
}

/// The captured output of a command.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// Returns the text that was printed so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
