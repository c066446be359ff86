//! Variables that outlive an evaluation.

use std::sync::{Mutex, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rhai::{Dynamic, Scope};

use crate::crossing::stack::{self, DropOnBigStack};
use crate::values::from_python::to_rhai;
use crate::values::gc::Objects;
use crate::values::known;
use crate::values::placing::Placing;
use crate::values::size::Measured;
use crate::values::to_python::to_python;

/// Variables and constants by name. A script that runs has it to itself.
#[pyclass(frozen, subclass, module = "rhai_tasks.engine._engine")]
pub struct NativeScope(Mutex<State>);

#[derive(Default)]
struct State {
    scope: DropOnBigStack<Scope<'static>>,
    busy: bool,
    /// The classes of the engine that its objects have their types of, and whether some have none yet.
    classes: Option<Py<PyDict>>,
    unplaced: bool,
    /// About the bytes of the values, and as many as they were when they were last measured.
    bytes: usize,
    measured: usize,
}

/// Bytes by which the size of a scope may be wrong.
const UNMEASURED: usize = 64 * 1024;

impl State {
    /// Return about how many bytes the values hold. They are measured only once that has changed by half: it takes long.
    fn held(&mut self) -> usize {
        if self.bytes.abs_diff(self.measured) > UNMEASURED.max(self.measured / 2) {
            let mut measured = Measured::default();
            let sizes = self.scope.iter_raw().map(|(.., value)| measured.add(value));
            self.measured = stack::roomy(|| sizes.sum());
            self.bytes = self.measured;
        }
        self.bytes
    }

    /// Remove a variable, if there is one.
    fn remove(&mut self, name: &str) -> Option<()> {
        let removed: Dynamic = self.scope.remove(name)?;
        self.bytes = self.bytes.saturating_sub(Measured::default().add(&removed));
        Some(())
    }
}

impl NativeScope {
    fn with<T>(&self, body: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.busy {
            return Err(PyRuntimeError::new_err(
                "the scope is in use: a script runs in it",
            ));
        }
        body(&mut state)
    }

    /// Give the objects in it the types of the engine that this thread uses.
    pub fn place(&self, py: Python<'_>) -> PyResult<()> {
        let is_placed = self.with(|state| {
            if !state.unplaced && state.classes.is_none() {
                state.classes = known::classes(py); // no engine has used it: there are no objects
            }
            Ok(!state.unplaced && known::is_current(py, state.classes.as_ref()))
        })?;
        if is_placed {
            return Ok(());
        }
        let (scope, bytes) = self.take()?; // no lock is held: a hook may use the scope
        let (mut placing, mut placed) = (Placing::default(), Scope::new());
        let mut ended = Ok(());
        stack::roomy(|| {
            for (name, mut value, _) in scope {
                let constant = value.is_read_only();
                if ended.is_ok() {
                    ended = placing.place(&mut value, &name);
                }
                placed.extend([(name, constant, value)]);
            }
        });
        self.put(placed, bytes);
        ended.and_then(|()| {
            self.with(|state| {
                state.classes = known::classes(py);
                state.unplaced = false;
                Ok(())
            })
        })
    }

    /// Return the constants.
    pub fn constants(&self) -> PyResult<Vec<(String, Dynamic)>> {
        self.with(|state| {
            stack::roomy(|| {
                let constants = state.scope.iter_raw().filter(|&(_, constant, _)| constant);
                Ok(constants
                    .map(|(name, _, value)| (name.to_owned(), value.clone()))
                    .collect())
            })
        })
    }

    /// Take the variables out, for an evaluation; return also about how many bytes they hold.
    pub fn take(&self) -> PyResult<(Scope<'static>, usize)> {
        let scope = self.with(|state| {
            let held = state.held();
            Ok((state.scope.take(), held))
        })?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).busy = true;
        Ok(scope)
    }

    /// Put them back, about so many bytes.
    pub fn put(&self, scope: Scope<'static>, bytes: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.scope = DropOnBigStack::new(scope);
        state.busy = false;
        state.bytes = bytes;
    }
}

#[pymethods]
impl NativeScope {
    #[new]
    #[pyo3(signature = (**_variables))]
    fn new(_variables: Option<&Bound<'_, PyDict>>) -> Self {
        // The Python subclass sets them.
        Self(Mutex::default())
    }

    /// Return a variable's value; raises KeyError if there is none.
    fn get_value(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        self.with(|state| match state.scope.get(name) {
            Some(value) => to_python(py, value),
            None => Err(PyKeyError::new_err(name.to_owned())),
        })
    }

    /// Set a variable, or add it, as a constant if asked; raises TypeError if it is a constant already.
    fn set_value(&self, name: String, value: &Bound<'_, PyAny>, constant: bool) -> PyResult<()> {
        let (value, unplaced) = known::outside(|| to_rhai(value, &name));
        let mut value = DropOnBigStack::new(value?);
        self.with(|state| {
            let known = state.scope.is_constant(&name);
            if known == Some(true) {
                return Err(PyTypeError::new_err(format!("{name} is a constant of the scope")));
            }
            state.unplaced |= unplaced;
            stack::roomy(|| {
                state.bytes += Measured::default().add(&value);
                if known.is_some() {
                    state.remove(&name);
                }
                if constant {
                    state.scope.push_constant_dynamic(name, value.take());
                } else {
                    state.scope.push_dynamic(name, value.take());
                }
            });
            Ok(())
        })
    }

    /// Remove a variable; raises KeyError if there is none.
    fn remove(&self, name: &str) -> PyResult<()> {
        self.with(|state| {
            stack::roomy(|| state.remove(name)).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
        })
    }

    /// Return the names, oldest first, with whether each is a constant.
    fn names(&self) -> PyResult<Vec<(String, bool)>> {
        self.with(|state| {
            let names = state.scope.iter_raw();
            let mut names: Vec<_> = names
                .map(|(name, constant, _)| (name.to_owned(), constant))
                .collect();
            names.reverse();
            Ok(names)
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(state) = self.0.try_lock() else {
            return Ok(());
        };
        let mut objects = Objects::default();
        state
            .scope
            .iter_raw()
            .for_each(|(_, _, value)| objects.add(value));
        objects.visit(1, &visit)?;
        visit.call(&state.classes)
    }
}
