//! Writes texts within the bounds of a script: a text may be far longer than its value, and take long to write.

use std::fmt::{self, Write};

use crate::bounds::guard::{self, Fallible};

/// Bytes that are written between two checks of the bounds; a piece counts as some more than it has.
const BETWEEN_CHECKS: usize = 64 * 1024;
const PIECE: usize = 16;

/// A text that takes no more memory than the script has left. Once it refuses a piece, the script has been stopped.
pub struct Text {
    text: String,
    room: usize,
    unchecked: usize,
}

impl Text {
    pub fn new() -> Self {
        Self {
            text: String::new(),
            room: guard::remaining(),
            unchecked: 0,
        }
    }

    pub fn push(&mut self, piece: &str) -> Fallible<()> {
        if piece.len() > self.room {
            return Err(guard::out_of_memory());
        }
        self.room -= piece.len();
        self.text.push_str(piece);
        self.unchecked += piece.len() + PIECE;
        if self.unchecked > BETWEEN_CHECKS {
            self.unchecked = 0;
            guard::stopped();
            guard::proceed()?;
        }
        Ok(())
    }

    /// Return the text so far.
    pub fn done(self) -> String {
        self.text
    }
}

impl Write for Text {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.push(piece).map_err(|_| fmt::Error)
    }
}

/// Write a text, unless it takes more memory or time than the script has left.
pub fn write(what: fmt::Arguments<'_>) -> Fallible<String> {
    let mut text = Text::new();
    match text.write_fmt(what) {
        Ok(()) => Ok(text.done()),
        Err(_) => guard::proceed().map(|()| text.done()),
    }
}
