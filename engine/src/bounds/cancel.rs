//! Cancellation, from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

/// A flag that stops scripts, from any thread.
#[pyclass(frozen, module = "rhai_tasks.engine._engine")]
#[derive(Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Stop the scripts that run, or will run, with this token.
    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether `cancel` was called.
    #[getter]
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
