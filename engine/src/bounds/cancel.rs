//! Cancellation, from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pyo3::prelude::*;

/// A flag that stops scripts, from any thread.
#[pyclass(frozen, module = "rhai_tasks.engine._engine")]
#[derive(Default)]
pub struct CancelToken(Arc<Flag>);

/// A token's state.
#[derive(Default)]
pub struct Flag {
    is_set: AtomicBool,
    /// A flag that counts for this one, too.
    outer: Option<Arc<Flag>>,
    /// The start of the time limit, if that is before the start of the evaluation.
    pub since: Option<Instant>,
}

impl Flag {
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed) || self.outer.as_ref().is_some_and(|outer| outer.is_set())
    }
}

impl CancelToken {
    pub fn flag(&self) -> Arc<Flag> {
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
        self.0.is_set.store(true, Ordering::Relaxed);
    }

    /// Whether `cancel` was called.
    #[getter]
    fn cancelled(&self) -> bool {
        self.0.is_set()
    }

    /// Return the same object: a copy cancels, and is cancelled, too.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    /// Return the token of one evaluation that waits for a thread: `cancel` of either stops that evaluation, and its time
    /// limit counts from now.
    fn of_waiting(&self) -> Self {
        Self(Arc::new(Flag {
            is_set: AtomicBool::new(false),
            outer: Some(self.flag()),
            since: Some(Instant::now()),
        }))
    }
}
