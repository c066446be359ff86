//! Runs a script or one of its functions, and turns the outcome into a Python value or exception.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FnPtr, ImmutableString, Position, Scope};

use crate::bounds::guard;
use crate::bounds::text;
use crate::crossing;
use crate::crossing::evaluation::{self, FATAL};
use crate::crossing::stack::{self, DropOnBigStack, MayNestDeeply};
use crate::host::failure::{Failure, raise};
use crate::values::refused::refusal;
use crate::values::to_python::{FunctionPointer, text_to_python, to_python};
use crate::values::{from_python, object, to_json};

/// Peaks in bytes above which the stack, and above which also the allocator, returns free memory to the system.
const LARGE: usize = 1024 * 1024;
const HUGE: usize = 16 * 1024 * 1024;
/// Bytes of a text that is converted at once.
const SMALL_TEXT: usize = 64 * 1024;

/// The part of a script to run: itself, or one of its functions.
pub enum Entry {
    Script,
    /// A name, arguments, `this`, and whether the script runs first.
    Function(String, Vec<Dynamic>, Option<Dynamic>, bool),
    Pointer(FnPtr, Vec<Dynamic>),
}

impl MayNestDeeply for Entry {
    fn is_flat(&self) -> bool {
        match self {
            Self::Script => true,
            Self::Function(_, arguments, this, _) => {
                arguments.is_flat() && this.as_ref().is_none_or(MayNestDeeply::is_flat)
            }
            Self::Pointer(pointer, arguments) => pointer.is_flat() && arguments.is_flat(),
        }
    }
}

impl Entry {
    /// Read the call that Python asks for; `None`: the script itself.
    pub fn of(call: Option<Call<'_>>) -> PyResult<DropOnBigStack<Self>> {
        let Some((target, arguments, this, runs_script)) = call else {
            return Ok(DropOnBigStack::new(Self::Script));
        };
        let mut arguments = from_python::arguments(&arguments)?;
        let mut this = this
            .map(|this| from_python::to_rhai(&this, "this").map(DropOnBigStack::new))
            .transpose()?;
        let this = this.as_mut().map(DropOnBigStack::take);
        Ok(DropOnBigStack::new(match target.cast::<FunctionPointer>() {
            Ok(pointer) => {
                let pointer = pointer.get().pointer(target.py())?;
                if this.is_none() {
                    Self::Pointer(pointer, arguments.take())
                } else {
                    let all = pointer.iter_curry().cloned().chain(arguments.take());
                    Self::Function(pointer.fn_name().to_owned(), all.collect(), this, false)
                }
            }
            Err(_) => Self::Function(
                target.extract().map_err(|_| refusal("target", &target))?,
                arguments.take(),
                this,
                runs_script,
            ),
        }))
    }
}

/// A call that Python asks for: a function, its name or a pointer; its arguments; `this`; whether the script runs first.
pub type Call<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyTuple>,
    Option<Bound<'py, PyAny>>,
    bool,
);

/// What an evaluation returns.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    /// The value in its native text form, which is Rust's own `to_string()`.
    Text,
    Value,
    /// The text, and the value as JSON.
    Json,
    /// Text and value, operations, and the peak of allocated bytes.
    Details,
}

impl Form {
    pub fn named(name: &str) -> Self {
        match name {
            "text" => Self::Text,
            "value" => Self::Value,
            "json" => Self::Json,
            _ => Self::Details,
        }
    }
}

/// The outcome of an evaluation.
pub struct Evaluated {
    value: Dynamic,
    text: String,
    json: String,
    // Without the cost of writing the text.
    operations: u64,
    peak: usize,
}

impl Evaluated {
    /// Whether it takes next to nothing to convert it.
    pub fn is_small(&self) -> bool {
        let string = self.value.read_lock::<ImmutableString>();
        let is_short = string.is_none_or(|string| string.len() < SMALL_TEXT);
        self.value.is_flat() && is_short && self.text.len() + self.json.len() < SMALL_TEXT
    }
}

/// Run within the thread's bounds.
pub fn run(
    engine: &Engine,
    ast: &AST,
    entry: &mut Entry,
    scope: &mut Scope<'static>,
    form: Form,
) -> Result<Evaluated, Failure> {
    let ended = guard::proceed().and_then(|()| match entry {
        Entry::Script => engine.eval_ast_with_scope::<Dynamic>(scope, ast),
        Entry::Function(name, arguments, this, runs_script) => {
            let mut options = CallFnOptions::default().eval_ast(*runs_script);
            if let Some(this) = this {
                options = options.bind_this_ptr(this);
            }
            engine.call_fn_with_options(options, scope, ast, name, std::mem::take(arguments))
        }
        Entry::Pointer(pointer, arguments) => pointer.call(engine, ast, std::mem::take(arguments)),
    });
    let mut no_json = None;
    let evaluated = ended.and_then(|value| {
        guard::proceed()?;
        let (operations, peak) = guard::used();
        let mut json = String::new();
        if form == Form::Json {
            let mut out = text::Text::new();
            match to_json::write(&mut out, &value) {
                Ok(()) => json = out.done(),
                Err(error) => no_json = Some(error.describe().ok_or_else(guard::out_of_memory)?),
            }
        }
        Ok(Evaluated {
            text: if form == Form::Value {
                String::new()
            } else {
                text(engine, &value)?
            },
            json,
            value: if matches!(form, Form::Text | Form::Json) {
                Dynamic::UNIT
            } else {
                value
            },
            operations,
            peak,
        })
    });
    if let Some(mut dropped) = evaluation::dropped() {
        if let Err(error) = evaluated {
            dropped.set_position(error.unwrap_inner().position());
        }
        return Err(Failure::dropped(dropped));
    }
    match (guard::stopped(), evaluated) {
        (None, Ok(_)) if no_json.is_some() => Err(Failure::NoJson(no_json.unwrap_or_default())),
        (None, Ok(evaluated)) => Ok(evaluated),
        (None, Err(error)) => Err(Failure::script(error).with_names(engine)),
        (Some(stop), Ok(_)) => Err(Failure::stopped(stop, Position::NONE)),
        (Some(stop), Err(error)) => Err(Failure::stopped(stop, error.unwrap_inner().position())),
    }
}

/// Write a value's text within the memory that is left: the text may be far longer than the value.
fn text(engine: &Engine, value: &Dynamic) -> Result<String, Box<EvalAltResult>> {
    if let Ok(string) = value.as_immutable_string_ref() {
        return Ok(string.to_string());
    }
    if let Ok(number) = value.as_int() {
        return Ok(number.to_string());
    }
    if let Some(object) = object::unwrap(value) {
        return crossing::python(|py| Ok(object.bind(py).str()?.to_cow()?.into_owned()))
            .map_err(evaluation::error);
    }
    if value.is_array() || value.is_map() {
        return text::value(value).map(|text| object::with_names(engine, text));
    }
    text::write(format_args!("{value}"))
}

/// Return the exception for a failure: that of `print`, a signal handler or Ctrl-C, if it stopped the script.
pub fn ended_by(py: Python<'_>, failure: Failure) -> PyErr {
    let failure = DropOnBigStack::new(failure);
    FATAL.take().unwrap_or_else(|| raise(py, &failure))
}

/// Make the Python value that the caller asked for.
pub fn returned(py: Python<'_>, form: Form, evaluated: Evaluated) -> PyResult<Py<PyAny>> {
    let Evaluated {
        value,
        text,
        json,
        operations,
        peak,
    } = evaluated;
    let value = DropOnBigStack::new(value);
    match form {
        Form::Text => text_to_python(py, &text),
        Form::Value => to_python(py, &value),
        Form::Json => Ok((text, json).into_pyobject(py)?.into_any().unbind()),
        Form::Details => to_python(py, &value).and_then(|value| {
            Ok((value, text_to_python(py, &text)?, operations, peak)
                .into_pyobject(py)?
                .into_any()
                .unbind())
        }),
    }
}

/// Return a converted value, or the stop that ended its conversion.
pub fn within_bounds(py: Python<'_>, converted: PyResult<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    converted.map_err(|error| match guard::stop_so_far() {
        Some(stop) => ended_by(py, Failure::stopped(stop, Position::NONE)),
        None => error,
    })
}

/// Return free memory to the system after an evaluation with this peak. Python's lock is not held meanwhile: a large heap
/// takes many milliseconds.
pub fn give_back(py: Python<'_>, peak: usize) {
    if peak <= LARGE {
        return;
    }
    py.detach(|| {
        stack::trim();
        #[cfg(target_env = "gnu")]
        if peak > HUGE {
            // SAFETY: it may be called at any time.
            unsafe {
                libc::malloc_trim(0);
            }
        }
    });
}
