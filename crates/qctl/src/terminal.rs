//! The user's terminal while a remote command has it: raw mode, and its size.

use std::io::{Error, stdin};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Serialize;

/// The size of a terminal in characters, as a resize message has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// Returns the size of the terminal of standard input; `None` if it has none.
#[must_use]
pub fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(stdin()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row }).filter(|size| size.width > 0 && size.height > 0)
}

/// Raw mode of the terminal of standard input: keys go to the remote command as they are. Dropping this restores the
/// former mode.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> Result<Self, Error> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal stays in raw mode; `reset` restores it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_sent_with_the_names_of_kubernetes() {
        let size = serde_json::to_string(&TerminalSize { width: 91, height: 17 }).expect("JSON");
        assert_eq!(size, r#"{"Width":91,"Height":17}"#);
    }
}
