//! What an engine knows of Python's classes: those that are types of its scripts, and the values that scripts get for
//! objects of others.

use std::cell::Cell;
use std::ptr;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::crossing::Restore;

/// What an engine knows of Python's classes. Python adds to it.
pub struct Known {
    /// The slot of each class that is a type of scripts.
    pub classes: Py<PyDict>,
    /// By class: functions that return the value that scripts get for an object.
    pub hooks: Py<PyDict>,
}

impl Known {
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.classes)?;
        visit.call(&self.hooks)
    }
}

thread_local! {
    /// What the engine that this thread uses knows; null outside of engines.
    static KNOWN: Cell<*const Known> = const { Cell::new(ptr::null()) };
    /// Whether an object was converted outside of engines.
    static UNPLACED: Cell<bool> = const { Cell::new(false) };
}

/// Use what an engine knows while the body runs.
pub fn during<T>(known: &Known, body: impl FnOnce() -> T) -> T {
    let _outer = Restore::new(&KNOWN, ptr::from_ref(known));
    body()
}

/// Know no engine while the body runs. Return also whether it has converted an object that an engine may know.
pub fn outside<T>(body: impl FnOnce() -> T) -> (T, bool) {
    let _outer = Restore::new(&KNOWN, ptr::null());
    let _outer_unplaced = Restore::new(&UNPLACED, false);
    let made = body();
    (made, UNPLACED.get())
}

fn with<T>(body: impl FnOnce(&Known) -> T) -> Option<T> {
    // SAFETY: `during` puts it there, and takes it away before its borrow ends, which is after the body.
    unsafe { KNOWN.get().as_ref() }.map(body)
}

/// Return the classes of the engine that this thread uses, if it uses one.
pub fn classes(py: Python<'_>) -> Option<Py<PyDict>> {
    with(|known| known.classes.clone_ref(py))
}

/// Whether these are the classes of the engine that this thread uses. Outside of engines there is nothing to choose yet.
pub fn is_current(py: Python<'_>, classes: Option<&Py<PyDict>>) -> bool {
    with(|known| classes.is_some_and(|classes| classes.bind(py).is(&known.classes))).unwrap_or_else(|| {
        UNPLACED.set(true);
        true
    })
}

/// Return the value that a script gets for an object, if its class or a base class of it has a hook.
#[inline(never)] // the conversion of numbers and texts, which have no hooks, stays small
pub fn stand_in<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    with(|known| {
        let hooks = known.hooks.bind(value.py());
        if hooks.is_empty() {
            return Ok(None);
        }
        for class in value.get_type().mro() {
            if let Some(hook) = hooks.get_item(class)? {
                return hook.call1((value,)).map(Some);
            }
        }
        Ok(None)
    })
    .unwrap_or(Ok(None))
}

/// Return the slot of an object's class or a base class of it.
///
/// `unplaced`: the slot of a class that some engine of the process knows, outside of engines.
pub fn slot(value: &Bound<'_, PyAny>, unplaced: usize) -> PyResult<Option<usize>> {
    let py = value.py();
    with(|known| {
        let classes = known.classes.bind(py);
        for class in value.get_type().mro() {
            if let Some(slot) = classes.get_item(class)? {
                return slot.extract().map(Some);
            }
        }
        Ok(None)
    })
    .unwrap_or_else(|| {
        static REGISTERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let registered = REGISTERED.import(py, "rhai_tasks.engine.classes", "registered")?;
        for class in value.get_type().mro() {
            if registered.contains(class)? {
                UNPLACED.set(true);
                return Ok(Some(unplaced));
            }
        }
        Ok(None)
    })
}
