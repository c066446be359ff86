//! The state of an evaluation that calls into Python: the call that it serves, its exceptions, its output.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use rhai::{Dynamic, EvalAltResult, ImmutableString, NativeCallContext, Position};

use crate::bounds::guard;
use crate::crossing::stack::DropOnBigStack;
use crate::crossing::{self, Restore, exit};

thread_local! {
    /// The thread's innermost evaluation.
    static CURRENT: Cell<Current> = const {
        Cell::new(Current { evaluation: ptr::null(), call: ptr::null() })
    };
    /// An exception that ends the evaluation, whatever the script does: KeyboardInterrupt, SystemExit, and those of
    /// `print`, `debug` and signal handlers.
    pub static FATAL: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Constants from outside; of two with one name, the last counts. A closure that outlives its evaluation keeps them.
pub type Constants = Arc<DropOnBigStack<Vec<(String, Dynamic)>>>;

/// An evaluation, and the call that a host function serves for it. Each is null if there is none.
#[derive(Clone, Copy)]
struct Current {
    evaluation: *const Evaluation<'static>,
    call: *const NativeCallContext<'static>,
}

/// The state of an evaluation that calls into Python.
pub struct Evaluation<'a> {
    /// Callables that receive the script's output.
    print: &'a Py<PyAny>,
    debug: &'a Py<PyAny>,
    /// Exceptions of host functions, each with the text that the script sees. The identity of the text finds the exception:
    /// an equal text is another one.
    raised: RefCell<Vec<(ImmutableString, PyErr)>>,
    /// An error of an iteration that Rhai dropped.
    dropped: RefCell<Option<Box<EvalAltResult>>>,
    passing: RefCell<Option<Passing>>,
    /// The modules that are being loaded, each imported by the one before.
    pub loading: RefCell<Vec<String>>,
    pub constants: &'a Constants,
}

/// The latest error of a script's function that a host function called, and the exception that it became.
struct Passing {
    exception: PyErr,
    error: DropOnBigStack<Box<EvalAltResult>>,
}

impl<'a> Evaluation<'a> {
    pub const fn new(print: &'a Py<PyAny>, debug: &'a Py<PyAny>, constants: &'a Constants) -> Self {
        Self {
            print,
            debug,
            raised: RefCell::new(Vec::new()),
            dropped: RefCell::new(None),
            passing: RefCell::new(None),
            loading: RefCell::new(Vec::new()),
            constants,
        }
    }

    /// Make it the thread's evaluation while the body runs.
    pub fn during<T>(&self, body: impl FnOnce() -> T) -> T {
        let _outer = Restore::new(
            &CURRENT,
            Current {
                evaluation: ptr::from_ref(self).cast(),
                call: ptr::null(),
            },
        );
        body()
    }

    /// Use the thread's evaluation, if there is one.
    pub fn with<T>(body: impl FnOnce(&Evaluation<'_>) -> T) -> Option<T> {
        // SAFETY: `during` puts it there, and takes it away before its borrow ends, which is after the body.
        unsafe { CURRENT.get().evaluation.as_ref() }.map(body)
    }
}

/// Serve a script's call in Python.
pub fn serve<T>(
    context: &NativeCallContext<'_>,
    body: impl FnOnce(Python<'_>) -> PyResult<T>,
) -> Result<T, Box<EvalAltResult>> {
    let _outer = Restore::new(
        &CURRENT,
        Current {
            call: ptr::from_ref(context).cast(),
            ..CURRENT.get()
        },
    );
    let called = crossing::python(body).map_err(error);
    Evaluation::with(|evaluation| evaluation.passing.take());
    called
}

/// Use the context of the call that this thread serves, if it serves one.
pub fn with_served<T>(body: impl FnOnce(&NativeCallContext<'_>) -> T) -> Option<T> {
    // SAFETY: `serve` puts it there, and takes it away before its borrow ends, which is after the body.
    unsafe { CURRENT.get().call.as_ref() }.map(body)
}

/// Note which exception the error of a script's function became for the host function that called it.
pub fn note_passing(exception: PyErr, error: Box<EvalAltResult>) {
    Evaluation::with(|evaluation| {
        evaluation.passing.replace(Some(Passing {
            exception,
            error: DropOnBigStack::new(error),
        }))
    });
}

/// Turn a host function's exception into an error that the script can catch, as it can catch a Rust host's. If the host
/// function let a script's own error through, return that error.
pub fn error(error: PyErr) -> Box<EvalAltResult> {
    let passing = Evaluation::with(|evaluation| evaluation.passing.take()).flatten();
    crossing::python(|py| {
        if let Some(mut passing) = passing {
            if passing.exception.value(py).is(error.value(py)) {
                let nothing = EvalAltResult::ErrorRuntime(Dynamic::UNIT, Position::NONE);
                return std::mem::replace(&mut *passing.error, nothing.into());
            }
        }
        if !error.is_instance_of::<PyException>(py) {
            FATAL.replace(Some(error.clone_ref(py)));
            guard::cancel();
        }
        let text = crossing::text_of(error.value(py)).filter(|text| !text.is_empty());
        let message = ImmutableString::from(text.unwrap_or_else(|| error.get_type(py).to_string()));
        Evaluation::with(|evaluation| {
            let mut raised = evaluation.raised.borrow_mut();
            raised.retain(|(text, _)| text.strong_count() > 1); // the script has dealt with the others
            raised.push((message.clone(), error));
        });
        EvalAltResult::ErrorRuntime(message.into(), Position::NONE).into()
    })
}

/// Use the exception of a host function that an error is, if it is one.
fn with_raised<T>(error: &EvalAltResult, body: impl FnOnce(&PyErr) -> T) -> Option<T> {
    let EvalAltResult::ErrorRuntime(value, _) = error.unwrap_inner() else {
        return None;
    };
    let text = value.read_lock::<ImmutableString>()?;
    Evaluation::with(|evaluation| {
        let raised = evaluation.raised.borrow();
        let (_, exception) = raised.iter().find(|(message, _)| message.ptr_eq(&text))?;
        Some(body(exception))
    })?
}

/// Whether an error is an exception of a host function.
pub fn has_raised(error: &EvalAltResult) -> bool {
    with_raised(error, |_| ()).is_some()
}

/// Return the exception of a host function that an error is, if it is one.
pub fn raised(py: Python<'_>, error: &EvalAltResult) -> Option<PyErr> {
    with_raised(error, |exception| exception.clone_ref(py))
}

/// End the evaluation with an error that Rhai has dropped: it reads no item if a loop has no body.
pub fn end_by_dropped(error: Box<EvalAltResult>) {
    Evaluation::with(|evaluation| evaluation.dropped.replace(Some(error)));
    guard::cancel();
}

/// Return the error that ended the evaluation after Rhai had dropped it.
pub fn dropped() -> Option<Box<EvalAltResult>> {
    Evaluation::with(|evaluation| evaluation.dropped.take()).flatten()
}

/// Let Python handle pending signals. It does so on the main thread alone, where Ctrl-C would wait for the script to end.
/// An exception of a handler ends the evaluation.
pub fn check_signals() {
    if !exit::is_main_thread() {
        return;
    }
    if let Err(error) = crossing::python(|py| py.check_signals()) {
        end_by(error);
    }
}

/// Pass a line that the script prints to Python.
pub fn print(text: &str) {
    write(|py, evaluation| evaluation.print.call1(py, (text,)));
}

/// Pass a text of the script's `debug` to Python.
pub fn debug(text: &str, source: Option<&str>, position: Position) {
    let place = (text, source, position.line(), position.position());
    write(|py, evaluation| evaluation.debug.call1(py, place));
}

/// Call Python with output; an exception ends the evaluation.
fn write(call: impl FnOnce(Python<'_>, &Evaluation<'_>) -> PyResult<Py<PyAny>>) {
    let written = Evaluation::with(|evaluation| crossing::python(|py| call(py, evaluation)));
    if let Some(Err(error)) = written {
        end_by(error);
    }
}

/// End the evaluation with an exception that the script cannot catch.
fn end_by(error: PyErr) {
    FATAL.replace(Some(error));
    guard::cancel();
}
