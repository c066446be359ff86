//! The Rhai engine for Python. This crate translates; rhai_tasks/engine/ decides what to allow.

#[cfg(not(target_os = "linux"))]
compile_error!("rhai-tasks runs on Linux only: docs/release.md says why");

mod bounds;
mod crossing;
mod engine;
mod host;
mod values;

use std::sync::OnceLock;

use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::bounds::{cancel, guard};
use crate::crossing::exit;
use crate::engine::{args, batch, native_engine, profile, recipe, request};
use crate::values::{scope, to_python};

/// Return whether the script that this thread runs has been stopped. Then a host function that waits should return.
#[pyfunction]
fn stopped() -> bool {
    guard::stopped().is_some()
}

/// Count bytes that the host keeps for the script that this thread runs as memory of the script, until it ends.
///
/// Raises:
///     RuntimeError: The script has been stopped, by this or before.
#[pyfunction]
fn charge(bytes: usize) -> PyResult<()> {
    guard::charge(bytes).map_err(|_| PyRuntimeError::new_err("the script has been stopped"))
}

/// Fail in a second interpreter of a process: what the library keeps for the process are objects of the first.
fn refuse_second_interpreter() -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: it imports this module, so the thread is attached to an interpreter, which has a number.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if *FIRST.get_or_init(|| this) == this {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "rhai_tasks.engine runs in one interpreter of a process: start a process instead of a subinterpreter",
    ))
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_second_interpreter()?;
    module.add("RHAI_VERSION", "1.27.0")?;
    module.add_class::<cancel::CancelToken>()?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<native_engine::NativeEngine>()?;
    module.add_class::<scope::NativeScope>()?;
    module.add_class::<to_python::FunctionPointer>()?;
    module.add_class::<to_python::Timestamp>()?;
    module.add("ArgsError", module.py().get_type::<args::ArgsError>())?;
    module.add_function(wrap_pyfunction!(profile::begin_profile, module)?)?;
    module.add_function(wrap_pyfunction!(profile::end_profile, module)?)?;
    module.add_function(wrap_pyfunction!(request::last_use, module)?)?;
    module.add_function(wrap_pyfunction!(recipe::standard_library, module)?)?;
    module.add_function(wrap_pyfunction!(exit::end_calls, module)?)?;
    module.add_function(wrap_pyfunction!(exit::forget_calls, module)?)?;
    module.add_function(wrap_pyfunction!(charge, module)?)?;
    module.add_function(wrap_pyfunction!(stopped, module)?)
}
