//! What an engine passes to scripts in place of objects of some classes.

use std::cell::Cell;
use std::ptr;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::crossing::Restore;

thread_local! {
    /// The hooks of the engine that this thread uses, functions by class; null outside of engines.
    static HOOKS: Cell<*const Py<PyDict>> = const { Cell::new(ptr::null()) };
}

/// Use an engine's hooks while the body runs.
pub fn during<T>(hooks: &Py<PyDict>, body: impl FnOnce() -> T) -> T {
    let _outer = Restore::new(&HOOKS, ptr::from_ref(hooks));
    body()
}

/// Return what a script is given in place of an object, if its class or a base class of it has a hook.
#[inline(never)] // the conversion of numbers and texts, which have no hooks, stays small
pub fn stand_in<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: `during` puts it there, and takes it away before its borrow ends, which is after the body.
    let Some(hooks) = (unsafe { HOOKS.get().as_ref() }) else {
        return Ok(None);
    };
    let hooks = hooks.bind(value.py());
    if hooks.is_empty() {
        return Ok(None);
    }
    for class in value.get_type().mro() {
        if let Some(hook) = hooks.get_item(class)? {
            return hook.call1((value,)).map(Some);
        }
    }
    Ok(None)
}
