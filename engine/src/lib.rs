//! The Rhai engine for Python. This crate translates; what to allow is decided in rhai_tasks/engine.py.

mod alloc;
mod border;
mod cancel;
mod engine;
mod failure;
mod garbage;
mod guard;
mod host;
mod natives;
mod object;
mod scope;
mod scripts;
mod source;
mod stack;
mod values;

use pyo3::prelude::*;

/// Whether the script that this thread runs has been stopped: a host function that waits should return.
#[pyfunction]
fn stopped() -> bool {
    guard::stopped().is_some()
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RHAI_VERSION", "1.27.0")?;
    module.add_class::<cancel::CancelToken>()?;
    module.add_class::<engine::NativeEngine>()?;
    module.add_class::<scope::NativeScope>()?;
    module.add_class::<values::FunctionPointer>()?;
    module.add_class::<values::Timestamp>()?;
    module.add_function(wrap_pyfunction!(engine::last_use, module)?)?;
    module.add_function(wrap_pyfunction!(engine::standard_library, module)?)?;
    module.add_function(wrap_pyfunction!(object::class_slot, module)?)?;
    module.add_function(wrap_pyfunction!(stopped, module)?)
}
