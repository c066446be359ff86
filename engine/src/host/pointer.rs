//! Script functions as Python objects: a pointer to one, which Python can call.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rhai::{Dynamic, FnPtr};

use crate::bounds::guard;
use crate::crossing::stack::DropOnBigStack;
use crate::crossing::{self, evaluation};
use crate::host::failure::{self, Failure};
use crate::values::from_python;
use crate::values::gc::Objects;
use crate::values::to_python::{FunctionPointer, to_python};

#[pymethods]
impl FunctionPointer {
    /// The function's name; the engine makes up that of a closure.
    #[getter]
    fn name(&self) -> &str {
        self.pointer.fn_name()
    }

    /// Call it: within the evaluation that it comes from while that runs, and later within one of its own.
    #[pyo3(signature = (*arguments))]
    fn __call__(slf: &Bound<'_, Self>, arguments: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if this.is_known() {
            let values = from_python::arguments(arguments)?;
            if let Some(called) = call_back(py, &this.pointer, values) {
                return to_python(py, &DropOnBigStack::new(called?));
            }
        }
        let Some(origin) = &this.origin else {
            return Err(PyRuntimeError::new_err(
                "no engine has used the scope of this function: call it by Engine.call(script, function, ...)",
            ));
        };
        let called = origin
            .engine
            .call_method1(py, intern!(py, "call_pointer"), (slf, arguments))?;
        Ok(called)
    }

    fn __repr__(&self) -> String {
        format!("FnPtr({:?})", self.pointer.fn_name())
    }

    /// Return the same object: it never changes.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut objects = Objects::default();
        self.pointer.iter_curry().for_each(|value| objects.add(value));
        objects.visit(1, &visit)?;
        visit.call(&self.classes)?;
        visit.call(self.origin.as_ref().map(|origin| &origin.engine))
    }
}

/// Call a function pointer inside the host function that received it; `None` outside of one.
fn call_back(
    py: Python<'_>,
    pointer: &FnPtr,
    mut arguments: DropOnBigStack<rhai::Array>,
) -> Option<PyResult<Dynamic>> {
    let called = evaluation::with_served(|context| {
        crossing::rhai(py, 0, || {
            Failure::unless_stopped(|| {
                pointer
                    .call_raw(context, None, arguments.take())
                    .map_err(|error| match guard::stopped() {
                        Some(stop) => Failure::stopped(stop, error.unwrap_inner().position()),
                        None => Failure::script(error),
                    })
            })
        })
    })?;
    Some(called.map_err(|failure| {
        let exception = failure::raise(py, &failure);
        if let Failure::Script(error, ..) = failure {
            evaluation::note_passing(exception.clone_ref(py), error);
        }
        exception
    }))
}
