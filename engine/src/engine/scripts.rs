//! A cache of the scripts that a thread has compiled.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use lru::LruCache;
use memchr::memmem;
use rhai::{AST, Dynamic};

use crate::crossing::stack::DropOnBigStack;
use crate::engine::lookup::Kind;

/// Bounds of a thread's cache: scripts, and their bytes. Most scripts take some ten times their source. One of a kilobyte may
/// take all the memory that compiling is allowed, since it contains copies of constants that it defines.
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
        let bytes = bytes + key.len();
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

/// Return the constants that a script may name, with their kinds: `eval` may make a name of parts.
pub fn named<'a>(source: &str, constants: &'a [(String, Dynamic)]) -> Vec<(&'a str, Kind)> {
    let contains = |text: &str| memmem::find(source.as_bytes(), text.as_bytes()).is_some();
    let mut evaluates = None;
    constants
        .iter()
        .filter(|(name, _)| contains(name) || *evaluates.get_or_insert_with(|| contains("eval")))
        .map(|(name, value)| (name.as_str(), Kind::of(value)))
        .collect()
}

/// Return the key of a compiled script, usually its source.
pub fn key<'a>(
    source: &'a str,
    name: Option<&str>,
    constants: &[(&str, Kind)],
    variables: &[String],
) -> Cow<'a, str> {
    if name.is_none() && constants.is_empty() && variables.is_empty() && !source.starts_with('\0') {
        return source.into();
    }
    let mut key = String::from("\0");
    let mut part = |text: &str| {
        let _ = write!(key, "{} {text}", text.len());
    };
    part(source);
    part(name.unwrap_or("\0")); // which is not a name
    for (name, kind) in constants {
        part(name);
        part(match kind {
            Kind::Plain => "",
            Kind::Array => "[",
            Kind::Map => "{",
        });
    }
    for name in variables {
        part(name);
        part("\0"); // which is not a kind
    }
    key.into()
}
