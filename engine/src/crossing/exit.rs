//! Keeps threads out of Python while the interpreter ends.
//!
//! Python ends a thread that still waits for its lock by unwinding the thread's stack. That cannot pass the frames of an
//! evaluation that has called Python, and would abort the process. So no script calls Python any more once the interpreter
//! begins to end, and that waits a while for the calls that have begun.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use thread_local::ThreadLocal;

/// Time between two checks of the other threads.
const PAUSE: Duration = Duration::from_millis(1);

/// Whether each thread runs Python code for a script.
static IN_PYTHON: ThreadLocal<AtomicBool> = ThreadLocal::new();
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Python code runs for a script until it is dropped.
pub struct InPython {
    here: &'static AtomicBool,
    before: bool,
}

impl InPython {
    /// Enter, without Python's lock; in an interpreter that ends, only the main thread does, and others wait here for the end
    /// of the process.
    pub fn enter() -> Self {
        let here = IN_PYTHON.get_or_default();
        let before = here.swap(true, Ordering::SeqCst);
        if IS_ENDING.load(Ordering::SeqCst) && !is_main_thread() {
            here.store(false, Ordering::SeqCst);
            loop {
                thread::park();
            }
        }
        Self { here, before }
    }
}

impl Drop for InPython {
    fn drop(&mut self) {
        self.here.store(self.before, Ordering::SeqCst);
    }
}

/// Whether this is the main thread of the process.
pub fn is_main_thread() -> bool {
    // SAFETY: both only return a number.
    unsafe { libc::gettid() == libc::getpid() }
}

/// Let no other thread's script call Python any more, and wait for the calls that have begun.
///
/// Args:
///     seconds: How long to wait.
#[pyfunction]
pub fn end_calls(py: Python<'_>, seconds: f64) {
    IS_ENDING.store(true, Ordering::SeqCst);
    let end = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    py.detach(|| {
        // The main thread is here, and calls nothing.
        while IN_PYTHON.iter().any(|thread| thread.load(Ordering::SeqCst)) && Instant::now() < end {
            thread::sleep(PAUSE);
        }
    });
}

/// Forget the calls of threads that a forked process does not have.
#[pyfunction]
pub fn forget_calls() {
    for thread in IN_PYTHON.iter() {
        thread.store(false, Ordering::SeqCst);
    }
}
