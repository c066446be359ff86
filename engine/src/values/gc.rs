//! Shows Python's garbage collector the Python objects in values of scripts.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use rhai::{Dynamic, FnPtr};

use crate::values::object;

/// Levels of nesting that are searched: a collection may run on a small stack.
const MAX_DEPTH: usize = 100;

/// The Python objects in one owner's values. Rhai's copies of a value share one reference to each.
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

    /// Values that closures share are left out: they have several owners.
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

    /// Report only objects that this owner alone holds: the collector may clear them.
    ///
    /// `copies`: the number of equal copies of the values that the owner has.
    pub fn visit(&self, copies: usize, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for Found { object, times } in self.0.values() {
            if Arc::strong_count(object) == times * copies + 1 {
                visit.call(&**object)?;
            }
        }
        Ok(())
    }
}
