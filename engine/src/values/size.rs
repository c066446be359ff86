//! How many bytes do values hold? A text or a shared value counts once, however often it occurs.

use std::collections::HashSet;
use std::ptr;

use rhai::{Dynamic, FnPtr};

/// Bytes of an element of an array, and of an entry of a map with a short key.
const ELEMENT: usize = 16;
const ENTRY: usize = 80;
/// Bytes of the holder of a value, outside of its element.
const HEAP: usize = 40;
/// The shortest text that is not inside its element, and the shortest one that is counted once.
const OUTSIDE: usize = 24;
const LONG_TEXT: usize = 64;

/// Values whose size is measured together.
#[derive(Default)]
pub struct Measured(HashSet<*const u8>);

impl Measured {
    /// Return the bytes that a value holds, without those that were counted before.
    pub fn add(&mut self, value: &Dynamic) -> usize {
        if let Some(items) = value.read_lock::<rhai::Array>() {
            if self.is_new(value, ptr::from_ref(&*items).cast()) {
                return items
                    .iter()
                    .fold(HEAP, |sum, item| sum + ELEMENT + self.add(item));
            }
        } else if let Some(entries) = value.read_lock::<rhai::Map>() {
            if self.is_new(value, ptr::from_ref(&*entries).cast()) {
                return entries.iter().fold(HEAP, |sum, (key, value)| {
                    sum + ENTRY + outside(key.len()) + self.add(value)
                });
            }
        } else if let Some(pointer) = value.read_lock::<FnPtr>() {
            if self.is_new(value, ptr::from_ref(&*pointer).cast()) {
                return pointer
                    .iter_curry()
                    .fold(2 * HEAP, |sum, value| sum + ELEMENT + self.add(value));
            }
        } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
            if text.len() < LONG_TEXT || self.0.insert(text.as_ptr()) {
                return outside(text.len());
            }
        } else if let Some(blob) = value.read_lock::<rhai::Blob>() {
            if self.is_new(value, ptr::from_ref(&*blob).cast()) {
                return HEAP + blob.len();
            }
        }
        0
    }

    fn is_new(&mut self, value: &Dynamic, place: *const u8) -> bool {
        !value.is_shared() || self.0.insert(place)
    }
}

fn outside(length: usize) -> usize {
    if length < OUTSIDE { 0 } else { HEAP + length }
}
