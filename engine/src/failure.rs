//! What an evaluation fails with, and the Python exception it becomes.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use pyo3::intern;
use pyo3::prelude::*;
use rhai::{EvalAltResult, Position};

use crate::guard::{Stop, Stopped};
use crate::host::{RAISED, has_raised};
use crate::values;

thread_local! {
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
}

/// What an evaluation ended with, before Python hears of it.
pub enum Failure {
    Script(Box<EvalAltResult>),
    Stopped(Stopped, Position),
    Panic(String),
}

/// Run Python's code inside an evaluation: its panics are its own.
pub fn outside<T>(body: impl FnOnce() -> T) -> T {
    let outer = EVALUATING.replace(false);
    let result = body();
    EVALUATING.set(outer);
    result
}

/// Run Rhai's code again inside of that.
pub fn inside<T>(body: impl FnOnce() -> T) -> T {
    let outer = EVALUATING.replace(true);
    let result = body();
    EVALUATING.set(outer);
    result
}

/// Run natively; a panic becomes a failure like any other.
pub fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    inside(|| panic::catch_unwind(AssertUnwindSafe(body))).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Failure::Panic(message.to_owned()))
    })
}

/// Keep panics that `caught` turns into errors off stderr; all others are reported as before.
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

/// Make the Python exception; its class is chosen in rhai_tasks/errors.py.
pub fn raise(py: Python<'_>, failure: &Failure) -> PyErr {
    match build_error(py, failure) {
        Ok(error) | Err(error) => error,
    }
}

fn build_error(py: Python<'_>, failure: &Failure) -> PyResult<PyErr> {
    let make = py
        .import(intern!(py, "rhai_tasks.errors"))?
        .getattr(intern!(py, "make_rhai_error"))?;
    let (kind, text, position, frames, debug, thrown, cause) = match failure {
        Failure::Script(error) => {
            let inner = error.unwrap_inner();
            let mut thrown = None;
            let mut cause = None;
            let mut kind = kind(inner);
            if let EvalAltResult::ErrorRuntime(value, _) = inner {
                thrown = Some(values::to_python(py, value).unwrap_or_else(|_| py.None()));
                if has_raised(error) {
                    cause = RAISED.take().map(|(_, exception)| exception);
                    kind = "Host";
                }
            }
            (
                kind,
                error.to_string(),
                inner.position(),
                frames(error),
                format!("{error:?}"),
                thrown,
                cause,
            )
        }
        Failure::Stopped(stopped, position) => {
            let text = with_position(&stopped.to_string(), *position);
            (
                stop_kind(stopped.stop),
                text.clone(),
                *position,
                Vec::new(),
                text,
                None,
                None,
            )
        }
        Failure::Panic(message) => {
            let text = format!("The engine failed: {message}");
            (
                "Panic",
                text.clone(),
                Position::NONE,
                Vec::new(),
                text,
                None,
                None,
            )
        }
    };
    let error = PyErr::from_value(make.call1((
        kind,
        text,
        position.line(),
        position.position(),
        frames,
        debug,
        thrown,
    ))?);
    if cause.is_some() {
        error.set_cause(py, cause);
    }
    Ok(error)
}

fn with_position(text: &str, position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{text} (line {line}, position {column})"),
        (Some(line), None) => format!("{text} (line {line})"),
        _ => text.to_owned(),
    }
}

/// Functions and modules the error passed through, innermost first: name, line, column.
fn frames(error: &EvalAltResult) -> Vec<(String, Option<usize>, Option<usize>)> {
    let mut frames = Vec::new();
    let mut error = error;
    while let EvalAltResult::ErrorInFunctionCall(name, _, inner, position)
    | EvalAltResult::ErrorInModule(name, inner, position) = error
    {
        frames.push((name.clone(), position.line(), position.position()));
        error = inner;
    }
    frames.reverse();
    frames
}

fn stop_kind(stop: Stop) -> &'static str {
    match stop {
        Stop::Operations => "TooManyOperations",
        Stop::Memory => "OutOfMemory",
        Stop::Timeout => "Timeout",
        Stop::Cancelled => "Cancelled",
    }
}

/// Name the variant, without its `Error`.
fn kind(error: &EvalAltResult) -> &'static str {
    match error {
        EvalAltResult::ErrorParsing(..) => "Parsing",
        EvalAltResult::ErrorVariableNotFound(..) => "VariableNotFound",
        EvalAltResult::ErrorPropertyNotFound(..) => "PropertyNotFound",
        EvalAltResult::ErrorFunctionNotFound(..) => "FunctionNotFound",
        EvalAltResult::ErrorModuleNotFound(..) => "ModuleNotFound",
        EvalAltResult::ErrorIndexNotFound(..) => "IndexNotFound",
        EvalAltResult::ErrorArrayBounds(..) => "ArrayBounds",
        EvalAltResult::ErrorStringBounds(..) => "StringBounds",
        EvalAltResult::ErrorBitFieldBounds(..) => "BitFieldBounds",
        EvalAltResult::ErrorMismatchDataType(..) => "MismatchDataType",
        EvalAltResult::ErrorMismatchOutputType(..) => "MismatchOutputType",
        EvalAltResult::ErrorIndexingType(..) => "IndexingType",
        EvalAltResult::ErrorFor(..) => "For",
        EvalAltResult::ErrorDotExpr(..) => "DotExpr",
        EvalAltResult::ErrorUnboundThis(..) => "UnboundThis",
        EvalAltResult::ErrorArithmetic(..) => "Arithmetic",
        EvalAltResult::ErrorAssignmentToConstant(..) => "AssignmentToConstant",
        EvalAltResult::ErrorNonPureMethodCallOnConstant(..) => "NonPureMethodCallOnConstant",
        EvalAltResult::ErrorStackOverflow(..) => "StackOverflow",
        EvalAltResult::ErrorTooManyVariables(..) => "TooManyVariables",
        EvalAltResult::ErrorTooManyModules(..) => "TooManyModules",
        EvalAltResult::ErrorDataTooLarge(..) => "DataTooLarge",
        EvalAltResult::ErrorRuntime(..) => "Runtime",
        _ => "Other",
    }
}
