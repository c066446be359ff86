//! A cache of the scripts that a thread has compiled.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use lru::LruCache;
use memchr::memmem;
use rhai::{AST, Dynamic};

use crate::crossing::stack::DropOnBigStack;

/// Bounds of a thread's cache: scripts, and their bytes. Most scripts take some ten times their source. One of a kilobyte may
/// take all the memory that compiling is allowed, since it contains copies of its constants.
const MOST_SCRIPTS: usize = 256;
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// Compiled scripts by key (see `key`); the least recently used is dropped first.
pub struct Scripts {
    compiled: LruCache<String, (DropOnBigStack<Arc<AST>>, usize)>,
    bytes: usize,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            compiled: LruCache::unbounded(),
            bytes: 0,
        }
    }

    pub fn find(&mut self, key: &str) -> Option<Arc<AST>> {
        self.compiled.get(key).map(|(ast, _)| Arc::clone(ast))
    }

    /// Keep a script of this many bytes, unless it takes the room of many others.
    pub fn keep(&mut self, key: String, ast: Arc<AST>, bytes: usize) {
        let bytes = bytes + 2 * key.len(); // the key, and texts of constants, which were allocated earlier
        if bytes > MOST_BYTES / 2 {
            return;
        }
        self.bytes += bytes;
        if let Some((_, replaced)) = self.compiled.put(key, (DropOnBigStack::new(ast), bytes)) {
            self.bytes -= replaced;
        }
        while self.bytes > MOST_BYTES || self.compiled.len() > MOST_SCRIPTS {
            match self.compiled.pop_lru() {
                Some((_, (_, bytes))) => self.bytes -= bytes,
                None => break,
            }
        }
    }
}

/// Return the constants that a script names. They are compiled into it, because its functions see no scope.
pub fn named<'a>(source: &str, constants: &'a [(String, Dynamic)]) -> Vec<&'a (String, Dynamic)> {
    constants
        .iter()
        .filter(|(name, _)| memmem::find(source.as_bytes(), name.as_bytes()).is_some())
        .collect()
}

/// Return the key of a compiled script, usually its source; `None` if no text identifies the value of a constant: such a
/// script is compiled each time.
pub fn key<'a>(
    source: &'a str,
    name: Option<&str>,
    constants: &[&(String, Dynamic)],
) -> Option<Cow<'a, str>> {
    if name.is_none() && constants.is_empty() && !source.starts_with('\0') {
        return Some(source.into());
    }
    let mut key = String::from("\0");
    let mut part = |text: &str| {
        let _ = write!(key, "{} {text}", text.len());
    };
    part(source);
    part(name.unwrap_or("\0")); // which is no name
    for (name, value) in constants {
        part(name);
        part(value.type_name());
        if let Ok(text) = value.as_immutable_string_ref() {
            part(&text);
        } else if let Ok(number) = value.as_float() {
            part(&number.to_bits().to_string()); // as text, -0.0 is 0.0
        } else if value.is_unit() || value.is_bool() || value.is_int() || value.is_char() {
            part(&value.to_string());
        } else {
            return None;
        }
    }
    Some(key.into())
}
