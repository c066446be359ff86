//! The crossing between Python and Rhai: whose lock is held, whose stack is used, whose panics are reported.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use pyo3::prelude::*;

use crate::failure::Failure;
use crate::stack;

thread_local! {
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
}

/// Run Python's code for a script: with the lock, on the thread's own stack; its panics are its own.
pub fn python<T>(body: impl FnOnce(Python<'_>) -> T) -> T {
    let evaluating = EVALUATING.replace(false);
    let result = stack::on_threads(|| Python::attach(body));
    EVALUATING.set(evaluating);
    result
}

/// Run Rhai's code: without the lock, on the engine's stack; a panic becomes a failure like any other.
pub fn rhai<T: Send>(
    py: Python<'_>,
    stack_size: usize,
    body: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    py.detach(|| {
        let evaluating = EVALUATING.replace(true);
        let result = stack::on_engines(stack_size, || panic::catch_unwind(AssertUnwindSafe(body)));
        EVALUATING.set(evaluating);
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(payload)) => Err(Failure::Panic(message(payload.as_ref()))),
            Err(stack::NoStack(size)) => Err(Failure::NoStack(size)),
        }
    })
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}

/// Keep panics that `rhai` turns into errors off stderr; all others are reported as before.
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
