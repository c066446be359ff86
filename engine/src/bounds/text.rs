//! Writes texts within the bounds of a script: a text may be far longer than its value, and take long to write.

use std::fmt::{self, Write};

use rhai::Dynamic;

use crate::bounds::guard::{self, Fallible};

/// Bytes that are written between two checks of the bounds; a piece counts as some more than it has.
const BETWEEN_CHECKS: usize = 64 * 1024;
const PIECE: usize = 16;
/// Bytes of a string whose characters are read together.
const DEBUG_PIECE: usize = 4096;

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
        if piece.len() > self.text.capacity() - self.text.len() {
            // As much again, but not more than there is: what is reserved counts, too.
            self.text
                .reserve_exact(self.text.len().clamp(piece.len(), self.room));
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

    /// Push a string as `{:?}` writes it. Rust would read every character before it writes the first, at a microsecond
    /// each.
    fn push_quoted(&mut self, string: &str) -> Fallible<()> {
        self.push("\"")?;
        let mut rest = string;
        while !rest.is_empty() {
            let mut end = rest.len().min(DEBUG_PIECE);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, left) = rest.split_at(end);
            let quoted = format!("{piece:?}");
            self.push(&quoted[1..quoted.len() - 1])?;
            rest = left;
        }
        self.push("\"")
    }

    fn push_value(&mut self, value: &Dynamic) -> Fallible<()> {
        if value.is_shared() {
            return self.push_debug(value);
        }
        if let Ok(string) = value.as_immutable_string_ref() {
            return self.push_quoted(&string);
        }
        if let Ok(array) = value.as_array_ref() {
            let mut before = "[";
            for item in array.iter() {
                self.push(before)?;
                self.push_value(item)?;
                before = ", ";
            }
            return self.push(if array.is_empty() { "[]" } else { "]" });
        }
        if let Ok(map) = value.as_map_ref() {
            let mut before = "#{";
            for (name, item) in map.iter() {
                self.push(before)?;
                self.push_quoted(name)?;
                self.push(": ")?;
                self.push_value(item)?;
                before = ", ";
            }
            return self.push(if map.is_empty() { "#{}" } else { "}" });
        }
        self.push_debug(value)
    }

    fn push_debug(&mut self, value: &Dynamic) -> Fallible<()> {
        self.write_fmt(format_args!("{value:?}"))
            .or_else(|_| guard::proceed())
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

/// Write a string as Rust's `{:?}` does, unless it takes more memory or time than the script has left.
pub fn debug(string: &str) -> Fallible<String> {
    let mut text = Text::new();
    text.push_quoted(string)?;
    Ok(text.done())
}

/// Write an array, a map or another value that is not a string as Rhai does, unless that takes more memory or time than the
/// script has left.
pub fn value(value: &Dynamic) -> Fallible<String> {
    let mut text = Text::new();
    text.push_value(value)?;
    Ok(text.done())
}

/// Write a text, unless it takes more memory or time than the script has left.
pub fn write(what: fmt::Arguments<'_>) -> Fallible<String> {
    let mut text = Text::new();
    match text.write_fmt(what) {
        Ok(()) => Ok(text.done()),
        Err(_) => guard::proceed().map(|()| text.done()),
    }
}
