//! How does a thread cross between Python and Rhai: lock, stack, panics, exceptions?

pub mod evaluation;
pub mod exit;
mod greenlets;
pub mod origin;
pub mod stack;

use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread::LocalKey;

use pyo3::prelude::*;

use crate::crossing::greenlets::Greenlet;
use crate::crossing::stack::NoStack;

thread_local! {
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
    /// The greenlet that runs the innermost evaluation. It is unknown until that calls Python: no other one can start before.
    static EVALUATING_GREENLET: Cell<Option<Greenlet>> = const { Cell::new(None) };
}

/// Restores a thread-local value when it is dropped, also while a panic unwinds.
pub struct Restore<T: Copy + 'static> {
    cell: &'static LocalKey<Cell<T>>,
    former: T,
}

impl<T: Copy> Restore<T> {
    /// Set another value until this is dropped.
    pub fn new(cell: &'static LocalKey<Cell<T>>, value: T) -> Self {
        let former = cell.replace(value);
        Self { cell, former }
    }
}

impl<T: Copy> Drop for Restore<T> {
    fn drop(&mut self) {
        self.cell.set(self.former);
    }
}

/// Run Python code for a script: with the lock, on the thread's own stack. Its panics are reported as usual.
pub fn python<T>(body: impl FnOnce(Python<'_>) -> T) -> T {
    let evaluating = Restore::new(&EVALUATING, false);
    let _in_python = evaluating.former.then(exit::InPython::enter);
    stack::on_threads(|| {
        Python::attach(|py| {
            if evaluating.former && EVALUATING_GREENLET.get().is_none() {
                EVALUATING_GREENLET.set(Some(greenlets::current(py)));
            }
            body(py)
        })
    })
}

/// Return the text of an object of the host, if it has one.
pub fn text_of(object: &Bound<'_, PyAny>) -> Option<String> {
    let text = object.str().ok()?;
    Some(text.to_string_lossy().into_owned())
}

/// The reason why Rhai code did not run to its end.
pub enum CrossingError {
    Panic(String),
    /// The system refused a stack of this many bytes.
    NoStack(usize, io::Error),
    /// Another greenlet of this thread has an unfinished evaluation.
    OtherGreenlet,
}

/// Run Rhai code, once: without the lock, on the engine's stack. A panic becomes an error.
pub fn rhai<T: Send, E: From<CrossingError> + Send>(
    py: Python<'_>,
    stack_size: usize,
    mut body: impl FnMut() -> Result<T, E> + Send,
) -> Result<T, E> {
    if EVALUATING_GREENLET
        .get()
        .is_some_and(|evaluating| evaluating != greenlets::current(py))
    {
        return Err(CrossingError::OtherGreenlet.into());
    }
    // The body is borrowed and writes its result here: each function on the way would copy both, which took 0.04 µs. This
    // first result never stays.
    let mut result = Err(CrossingError::Panic(String::new()).into());
    py.detach(|| {
        let _outer = Restore::new(&EVALUATING, true);
        let _outer_greenlet = Restore::new(&EVALUATING_GREENLET, None);
        let caught = stack::on_engines(stack_size, || {
            panic::catch_unwind(AssertUnwindSafe(|| result = body()))
        });
        match caught {
            Ok(Ok(())) => {}
            Ok(Err(payload)) => result = Err(CrossingError::Panic(message(payload.as_ref())).into()),
            Err(NoStack(error)) => result = Err(CrossingError::NoStack(stack_size, error).into()),
        }
    });
    result
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}

/// Keep panics that `rhai` turns into errors off stderr. All others are reported as before.
pub fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            if !EVALUATING.get() {
                report(information);
            }
        }));
    });
}
