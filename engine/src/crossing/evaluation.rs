//! The crossing between Python and Rhai: whose lock is held, whose stack is used, whose panics are reported.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread::LocalKey;

use pyo3::prelude::*;

use crate::failure::Failure;
use crate::stack;

thread_local! {
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
}

/// A thread's value that is another for a while; the former is back afterwards, also when a panic passes.
pub struct Replaced<T: Copy + 'static>(&'static LocalKey<Cell<T>>, T);

impl<T: Copy> Replaced<T> {
    pub fn new(cell: &'static LocalKey<Cell<T>>, value: T) -> Self {
        Self(cell, cell.replace(value))
    }
}

impl<T: Copy> Drop for Replaced<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Run Python's code for a script: with the lock, on the thread's own stack; its panics are its own.
pub fn python<T>(body: impl FnOnce(Python<'_>) -> T) -> T {
    let _outer = Replaced::new(&EVALUATING, false);
    stack::on_threads(|| Python::attach(body))
}

/// Run Rhai's code, once: without the lock, on the engine's stack; a panic becomes a failure like any other.
pub fn rhai<T: Send>(
    py: Python<'_>,
    stack_size: usize,
    mut body: impl FnMut() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    // The result is written where it stays, and the body only borrowed: each layer on the way would copy both, which took
    // 0.04 µs. It is this one if there is no stack to run the body on.
    let mut result = Err(Failure::NoStack(stack_size));
    py.detach(|| {
        let _outer = Replaced::new(&EVALUATING, true);
        let caught = stack::on_engines(stack_size, || {
            panic::catch_unwind(AssertUnwindSafe(|| result = body()))
        });
        if let Ok(Err(payload)) = caught {
            result = Err(Failure::Panic(message(payload.as_ref())));
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
