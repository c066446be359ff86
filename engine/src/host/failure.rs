//! Failures of evaluations, and the Python exceptions that they become.

use std::fmt::{self, Write};
use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use rhai::{EvalAltResult, Position};

use crate::bounds::guard;
use crate::bounds::meter::Stop;
use crate::crossing::CrossingError;
use crate::crossing::evaluation;
use crate::crossing::stack::MayNestDeeply;
use crate::values::to_python::to_python;

/// A failure of an evaluation.
pub enum Failure {
    /// The script's own error, its text, and its text by Rust's `{:?}`.
    Script(Box<EvalAltResult>, String, String),
    /// The bound that stopped it, its description, and the position.
    Stopped(Stop, String, Position),
    /// The value cannot be written as JSON: why.
    NoJson(String),
    Panic(String),
    /// The system refused a stack of this many bytes.
    NoStack(usize, io::Error),
    /// Another greenlet of this thread has an unfinished evaluation.
    OtherGreenlet,
}

impl MayNestDeeply for Failure {}

impl From<CrossingError> for Failure {
    fn from(error: CrossingError) -> Self {
        match error {
            CrossingError::Panic(message) => Self::Panic(message),
            CrossingError::NoStack(size, error) => Self::NoStack(size, error),
            CrossingError::OtherGreenlet => Self::OtherGreenlet,
        }
    }
}

impl Failure {
    /// Make a failure of a script's error. Its text is written at once, on the script's stack and within its memory limit: a
    /// thrown value may nest deeply, and its text may be far longer than the value.
    pub fn script(error: Box<EvalAltResult>) -> Self {
        match (
            bounded(|out| write!(out, "{error}")),
            bounded(|out| write!(out, "{error:?}")),
        ) {
            (Ok(text), Ok(debug_text)) => Self::Script(error, text, debug_text),
            _ => Self::stopped(Stop::Memory, error.unwrap_inner().position()),
        }
    }

    pub fn stopped(stop: Stop, position: Position) -> Self {
        Self::Stopped(stop, guard::describe(stop), position)
    }
}

/// A text that takes no more memory than the script has left.
pub struct BoundedText {
    text: String,
    left: usize,
}

impl Write for BoundedText {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.left = self.left.checked_sub(piece.len()).ok_or(fmt::Error)?;
        self.text.push_str(piece);
        Ok(())
    }
}

/// Write a text; the writer gets an error once it takes more memory than the script has left.
pub fn bounded<E>(write: impl FnOnce(&mut BoundedText) -> Result<(), E>) -> Result<String, E> {
    let mut text = BoundedText {
        text: String::new(),
        left: guard::remaining(),
    };
    write(&mut text).map(|()| text.text)
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
    // A failure that is no error of the script's own has one text, and passed through no calls.
    let plain = |kind, text: String, position| (kind, text.clone(), position, Vec::new(), text, None, None);
    let (kind, text, position, frames, debug, thrown, cause) = match failure {
        Failure::Script(error, text, debug_text) => {
            let inner = error.unwrap_inner();
            let mut thrown = None;
            let mut cause = None;
            let mut kind = kind(inner);
            if let EvalAltResult::ErrorRuntime(value, _) = inner {
                thrown = Some(to_python(py, value).unwrap_or_else(|_| py.None()));
                if evaluation::has_raised(error) {
                    cause = evaluation::raised(py);
                    kind = "Host";
                }
            }
            (
                kind,
                text.clone(),
                inner.position(),
                frames(error),
                debug_text.clone(),
                thrown,
                cause,
            )
        }
        Failure::Stopped(stop, text, position) => {
            plain(stop_kind(*stop), with_position(text, *position), *position)
        }
        Failure::NoJson(why) => plain("NoJson", why.clone(), Position::NONE),
        Failure::Panic(message) => plain("Panic", format!("The engine failed: {message}"), Position::NONE),
        Failure::NoStack(size, error) => plain(
            "OutOfMemory",
            format!(
                "There is no room for a stack of {} MiB to run the script on: {error}",
                size >> 20
            ),
            Position::NONE,
        ),
        Failure::OtherGreenlet => {
            return Err(PyRuntimeError::new_err(
                "another greenlet of this thread is in the midst of a script: a thread runs one at a time",
            ));
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

/// Return the functions and modules that the error passed through, innermost first: name, line, column.
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

/// Return the name of the variant, without its `Error`.
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
