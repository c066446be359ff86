//! Failures of evaluations, and the Python exceptions that they become.

use std::io;
use std::panic::{self, AssertUnwindSafe};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use rhai::{Engine, EvalAltResult, Position};

use crate::bounds::guard;
use crate::bounds::limits::Stop;
use crate::bounds::text;
use crate::crossing::CrossingError;
use crate::crossing::evaluation;
use crate::crossing::stack::MayNestDeeply;
use crate::values::object;
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
        let texts = text::write(format_args!("{error}"))
            .and_then(|text| Ok((text, text::write(format_args!("{error:?}"))?)));
        match (texts, guard::stopped()) {
            (Ok((text, debug_text)), None) => Self::Script(error, text, debug_text),
            (_, stop) => Self::stopped(stop.unwrap_or(Stop::Memory), error.unwrap_inner().position()),
        }
    }

    /// Let its texts name classes as scripts do.
    pub fn with_names(self, engine: &Engine) -> Self {
        match self {
            Self::Script(error, text, debug_text) => Self::Script(
                error,
                object::with_names(engine, text),
                object::with_names(engine, debug_text),
            ),
            other => other,
        }
    }

    /// Make a failure of an error of Python's that the script has been stopped for.
    pub fn dropped(error: Box<EvalAltResult>) -> Self {
        let (text, debug_text) = (error.to_string(), format!("{error:?}"));
        Self::Script(error, text, debug_text)
    }

    pub fn stopped(stop: Stop, position: Position) -> Self {
        Self::Stopped(stop, guard::describe(stop), position)
    }

    /// Run a body within the thread's bounds. A panic of a script that has been stopped is that stop: Rhai's parser, for one,
    /// takes it for granted that an interpolated string has an end.
    pub fn unless_stopped<T>(body: impl FnOnce() -> Result<T, Self>) -> Result<T, Self> {
        panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| match guard::stopped() {
            Some(stop) => Err(Self::stopped(stop, Position::NONE)),
            None => panic::resume_unwind(panic),
        })
    }
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
    // A failure that is not an error of the script's own has one text, and passed through no calls.
    let plain = |kind, text: String, position| (kind, text.clone(), position, Vec::new(), text, None, None);
    let (kind, text, position, frames, debug, thrown, cause) = match failure {
        Failure::Script(error, text, debug_text) => {
            let inner = error.unwrap_inner();
            let mut thrown = None;
            let mut cause = None;
            let mut kind = kind(inner);
            if let EvalAltResult::ErrorRuntime(value, _) = inner {
                let converted = to_python(py, value);
                if let Some(stop) = guard::stop_so_far() {
                    return build_error(py, &Failure::stopped(stop, inner.position()));
                }
                thrown = Some(converted.unwrap_or_else(|_| py.None()));
                cause = evaluation::raised(py, error);
                if cause.is_some() {
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
            "NoStack",
            format!(
                "The system has no memory for the stack of {} MiB that a script runs on: {error}",
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
