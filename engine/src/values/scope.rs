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
use crate::values::to_python::to_python;

/// Variables and constants by name. A script that runs has it to itself.
#[pyclass(frozen, subclass, module = "rhai_tasks.engine._engine")]
pub struct NativeScope(Mutex<State>);

struct State {
    scope: DropOnBigStack<Scope<'static>>,
    busy: bool,
}

impl NativeScope {
    fn with<T>(&self, body: impl FnOnce(&mut Scope<'static>) -> PyResult<T>) -> PyResult<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.busy {
            return Err(PyRuntimeError::new_err(
                "the scope is in use: a script runs in it",
            ));
        }
        body(&mut state.scope)
    }

    /// Return the constants that no newer variable shadows.
    pub fn constants(&self) -> PyResult<Vec<(String, Dynamic)>> {
        self.with(|scope| {
            stack::roomy(|| {
                let mut newest: Vec<&str> = Vec::new();
                let mut constants = Vec::new();
                for (name, constant, value) in scope.iter_raw() {
                    if !newest.contains(&name) {
                        newest.push(name);
                        if constant {
                            constants.push((name.to_owned(), value.clone()));
                        }
                    }
                }
                Ok(constants)
            })
        })
    }

    /// Take the variables out, for an evaluation.
    pub fn take(&self) -> PyResult<Scope<'static>> {
        let scope = self.with(|scope| Ok(std::mem::take(scope)))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).busy = true;
        Ok(scope)
    }

    /// Put them back.
    pub fn put(&self, scope: Scope<'static>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State {
            scope: DropOnBigStack::new(scope),
            busy: false,
        };
    }
}

#[pymethods]
impl NativeScope {
    #[new]
    #[pyo3(signature = (**_variables))]
    fn new(_variables: Option<&Bound<'_, PyDict>>) -> Self {
        // The Python subclass sets them.
        Self(Mutex::new(State {
            scope: DropOnBigStack::new(Scope::new()),
            busy: false,
        }))
    }

    /// Return a variable's value; raises KeyError if there is none.
    fn get_value(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        self.with(|scope| match scope.get(name) {
            Some(value) => to_python(py, value),
            None => Err(PyKeyError::new_err(name.to_owned())),
        })
    }

    /// Set a variable, or add it, as a constant if asked; raises TypeError if it is a constant already.
    fn set_value(&self, name: String, value: &Bound<'_, PyAny>, constant: bool) -> PyResult<()> {
        let mut value = DropOnBigStack::new(to_rhai(value, &name)?);
        self.with(|scope| {
            match (scope.is_constant(&name), constant) {
                (Some(true), _) => {
                    return Err(PyTypeError::new_err(format!("{name} is a constant of the scope")));
                }
                (Some(false), false) => stack::roomy(|| {
                    scope.set_value(name, value.take()); // frees the old one
                }),
                (_, false) => {
                    scope.push_dynamic(name, value.take());
                }
                (_, true) => {
                    scope.push_constant_dynamic(name, value.take());
                }
            }
            Ok(())
        })
    }

    /// Remove a variable, or the newest of that name; raises KeyError if there is none.
    fn remove(&self, name: &str) -> PyResult<()> {
        self.with(|scope| {
            stack::roomy(|| scope.remove::<Dynamic>(name).map(drop))
                .ok_or_else(|| PyKeyError::new_err(name.to_owned()))
        })
    }

    /// Return the names, oldest first, with whether each is a constant.
    fn names(&self) -> PyResult<Vec<(String, bool)>> {
        self.with(|scope| {
            let mut names: Vec<(String, bool)> = Vec::new();
            for (name, constant, _) in scope.iter_raw() {
                if !names.iter().any(|(other, _)| other == name) {
                    names.push((name.to_owned(), constant));
                }
            }
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
        objects.visit(1, &visit)
    }
}
