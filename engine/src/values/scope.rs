//! Variables that outlive an evaluation.

use std::sync::{Mutex, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rhai::{Dynamic, Scope};

use crate::crossing::origin::Origin;
use crate::crossing::stack::{self, DropOnBigStack};
use crate::values::copying::Copying;
use crate::values::from_python::{to_rhai, variable};
use crate::values::functions::Functions;
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
    functions: Option<DropOnBigStack<Functions>>,
    /// The latest engine and script that have used it.
    origin: Option<Origin>,
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

    fn function_bytes(&self) -> usize {
        self.functions.as_ref().map_or(0, |functions| functions.bytes)
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

    /// Return the functions that it keeps, if a script with functions has used it.
    pub fn functions(&self) -> Option<DropOnBigStack<Functions>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let functions = state.functions.as_ref();
        functions.map(|functions| DropOnBigStack::new(Functions::clone(functions)))
    }

    pub fn keep_functions(&self, functions: DropOnBigStack<Functions>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.functions = Some(functions);
    }

    /// Note which engine and script have used it.
    pub fn came_from(&self, origin: Origin) {
        let former = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.origin.replace(origin)
        };
        drop(former); // without the lock: it may be the last owner of Python objects
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
            let held = state.held() + state.function_bytes();
            Ok((state.scope.take(), held))
        })?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).busy = true;
        Ok(scope)
    }

    /// Put the variables back; they take about `bytes`.
    pub fn put(&self, scope: Scope<'static>, bytes: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.scope = DropOnBigStack::new(scope);
        state.busy = false;
        state.bytes = bytes.saturating_sub(state.function_bytes());
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
        self.with(|state| match (state.scope.get(name), &state.origin) {
            (Some(value), Some(origin)) => origin.during(|| to_python(py, value)),
            (Some(value), None) => to_python(py, value),
            (None, _) => Err(PyKeyError::new_err(name.to_owned())),
        })
    }

    /// Take the variables, constants and functions of another one in place of its own.
    fn become_copy(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        let copy = other.with(|state| {
            let (mut copying, mut scope) = (Copying::default(), DropOnBigStack::new(Scope::new()));
            stack::roomy(|| {
                let mut entries: Vec<_> = state.scope.iter_raw().collect();
                entries.reverse(); // oldest first
                for (name, constant, value) in entries {
                    scope.extend([(name.to_owned(), constant, copying.copy(value))]);
                }
            });
            let functions = state.functions.as_ref();
            Ok(State {
                scope,
                busy: false,
                classes: state.classes.as_ref().map(|classes| classes.clone_ref(py)),
                unplaced: state.unplaced,
                functions: functions.map(|functions| DropOnBigStack::new(Functions::clone(functions))),
                origin: state.origin.as_ref().map(|origin| origin.clone_ref(py)),
                bytes: state.bytes,
                measured: state.measured,
            })
        })?;
        let former = self.with(|state| Ok(std::mem::replace(state, copy)))?;
        drop(former); // without the lock: it may be the last owner of Python objects
        Ok(())
    }

    /// Whether it keeps functions of scripts.
    fn has_functions(&self) -> PyResult<bool> {
        self.with(|state| Ok(state.functions.is_some()))
    }

    /// Set a variable, or add it, as a constant if asked; raises TypeError if it is a constant already.
    fn set_value(&self, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, constant: bool) -> PyResult<()> {
        let name = variable(name)?;
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
    pub fn names(&self) -> PyResult<Vec<(String, bool)>> {
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
        visit.call(&state.classes)?;
        visit.call(state.origin.as_ref().map(|origin| &origin.engine))
    }
}
