//! The Rhai engine for Python. This crate translates; rhai_tasks/engine/ decides what to allow.

#[cfg(not(target_os = "linux"))]
compile_error!("rhai-tasks runs on Linux only: docs/release.md says why");

mod bounds;
mod crossing;
mod engine;
mod host;
mod values;

use pyo3::exceptions::PyRuntimeError;
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

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
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
