//! Identifies greenlets: those of a thread share the engine's stack, so only one of them can evaluate at a time.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// The address of a greenlet's object, which lives as long as the greenlet is suspended. `None` is the thread's main greenlet,
/// and the only one until the package is imported.
pub type Greenlet = Option<usize>;

/// Return the greenlet that runs now.
pub fn current(py: Python<'_>) -> Greenlet {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES
        .get_or_try_init(py, || {
            let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
            PyResult::Ok(modules.cast_into::<PyDict>()?.unbind())
        })
        .ok()?;
    let package = modules.bind(py).get_item(intern!(py, "greenlet")).ok()??;
    let current = package.call_method0(intern!(py, "getcurrent")).ok()?;
    let is_main = current.getattr(intern!(py, "parent")).ok()?.is_none();
    (!is_main).then(|| current.as_ptr() as usize)
}
