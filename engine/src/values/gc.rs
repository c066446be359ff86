//! What Python's garbage collector sees of the Python objects in values of scripts.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use rhai::{Dynamic, FnPtr};

use crate::object;

/// Levels of nesting that are looked into: a collection runs on whatever stack there is.
const MAX_DEPTH: usize = 100;

/// The Python objects that one owner's values refer to, by the reference that Rhai's copies of them share.
#[derive(Default)]
pub struct Objects(HashMap<*const Py<PyAny>, Found>);

struct Found {
    object: Arc<Py<PyAny>>,
    times: usize,
}

impl Objects {
    pub fn add(&mut self, value: &Dynamic) {
        self.add_nested(value, 0);
    }

    /// What closures share is left out: it has no one owner.
    fn add_nested(&mut self, value: &Dynamic, depth: usize) {
        if depth > MAX_DEPTH || value.is_shared() {
            return;
        }
        if let Ok(items) = value.as_array_ref() {
            items.iter().for_each(|item| self.add_nested(item, depth + 1));
        } else if let Ok(entries) = value.as_map_ref() {
            entries
                .values()
                .for_each(|value| self.add_nested(value, depth + 1));
        } else if let Some(pointer) = value.read_lock::<FnPtr>() {
            pointer
                .iter_curry()
                .for_each(|value| self.add_nested(value, depth + 1));
        } else if let Some(object) = object::unwrap(value) {
            let found = self
                .0
                .entry(Arc::as_ptr(&object))
                .or_insert(Found { object, times: 0 });
            found.times += 1;
        }
    }

    /// Show the collector those that nobody else holds. One that it believed to be the owner's alone would be cleared
    /// under the others' hands.
    ///
    /// `copies`: how many equal copies of the values the owner has.
    pub fn visit(&self, copies: usize, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for Found { object, times } in self.0.values() {
            if Arc::strong_count(object) == times * copies + 1 {
                visit.call(&**object)?;
            }
        }
        Ok(())
    }
}
