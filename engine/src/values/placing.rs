//! Gives objects in values the types of an engine: other engines have other ones.

use std::collections::HashSet;
use std::mem;

use pyo3::prelude::*;
use rhai::{Array, Dynamic, FnPtr, Map};

use crate::crossing;
use crate::values::from_python::to_rhai;
use crate::values::object;

/// Gives objects their types in the engine that this thread uses. Runs on the engine's stack.
#[derive(Default)]
pub struct Placing {
    /// Shared values that were reached before, by address.
    seen: HashSet<*const Dynamic>,
}

impl Placing {
    /// Place the objects in a value.
    ///
    /// `name`: stands for the value in texts of errors.
    pub fn place(&mut self, value: &mut Dynamic, name: &str) -> PyResult<()> {
        if !value.is_shared() {
            return self.place_unshared(value, name);
        }
        // Taken out, because the value may contain itself: its lock cannot be taken twice.
        let mut inner = match value.write_lock::<Dynamic>() {
            Some(mut inner) if self.seen.insert(&raw const *inner) => mem::take(&mut *inner),
            _ => return Ok(()),
        };
        let placed = self.place_unshared(&mut inner, name);
        if let Some(mut place) = value.write_lock::<Dynamic>() {
            *place = inner;
        }
        placed
    }

    fn place_unshared(&mut self, value: &mut Dynamic, name: &str) -> PyResult<()> {
        if let Some(object) = object::unwrap(value) {
            let placed = crossing::python(|py| to_rhai(object.bind(py), name))?;
            *value = if value.is_read_only() {
                placed.into_read_only()
            } else {
                placed
            };
        } else if let Some(mut items) = value.write_lock::<Array>() {
            return items.iter_mut().try_for_each(|item| self.place(item, name));
        } else if let Some(mut entries) = value.write_lock::<Map>() {
            return entries.values_mut().try_for_each(|item| self.place(item, name));
        } else if let Some(mut pointer) = value.write_lock::<FnPtr>() {
            return self.place_curried(&mut pointer, name);
        }
        Ok(())
    }

    /// Place the objects in the curried arguments of a function.
    pub fn place_curried(&mut self, pointer: &mut FnPtr, name: &str) -> PyResult<()> {
        pointer
            .iter_curry_mut()
            .try_for_each(|value| self.place(value, name))
    }
}
