//! Converts Python values for scripts. It drops nothing and turns nothing into text: a value without a counterpart is an
//! error.

use std::iter;

use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping, PyMemoryView,
    PyRange, PySet, PyString, PyTuple, PyType,
};
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, INT, Map, NativeCallContext, is_valid_function_name};
use rust_decimal::Decimal;

use crate::bounds::guard;
use crate::crossing::stack::DropOnBigStack;
use crate::crossing::{self, evaluation};
use crate::values::refused::{Refused, refusal};
use crate::values::to_python::{FunctionPointer, MAX_DEPTH, Timestamp, decimal_class, to_python};
use crate::values::{known, object};

/// A converted value, or the reason why there is none.
type Converted = Result<Dynamic, Box<Refused>>;

/// Convert a Python value. `name` stands for the value in texts of errors.
pub fn to_rhai(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Dynamic> {
    nested_to_rhai(value, 0).map_err(|refused| refused.error(value.py(), name))
}

fn nested_to_rhai(value: &Bound<'_, PyAny>, depth: usize) -> Converted {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "the value is nested deeper than {MAX_DEPTH} levels, or contains itself"
        ))
        .into());
    }
    // The most frequent types come first. A class may also be registered with scripts as a type.
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(text.to_str()?.into());
    }
    if value.is_none() {
        return Ok(Dynamic::UNIT);
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(truth.is_true().into());
    }
    if value.is_exact_instance_of::<PyInt>() {
        return Ok(fitting(value)?.into());
    }
    if let Ok(number) = value.cast_exact::<PyFloat>() {
        return Ok(number.value().into());
    }
    if let Ok(items) = value.cast_exact::<PyList>() {
        return array(items.iter(), depth);
    }
    if let Ok(items) = value.cast_exact::<PyTuple>() {
        return array(items.iter(), depth);
    }
    if let Ok(entries) = value.cast_exact::<PyDict>() {
        return map(entries_of(entries), depth);
    }
    if let Some(stand_in) = known::stand_in(value)? {
        return nested_to_rhai(&stand_in, depth + 1);
    }
    if let Some(object) = object::wrap(value)? {
        return Ok(object);
    }
    other_to_rhai(value, depth)
}

fn other_to_rhai(value: &Bound<'_, PyAny>, depth: usize) -> Converted {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text.to_str()?.into());
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(fitting(value)?.into());
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(number.value().into());
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Dynamic::from_blob(bytes.as_bytes().to_vec()));
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Ok(Dynamic::from_blob(bytes.to_vec()));
    }
    if value.is_instance_of::<PyMemoryView>() {
        return Ok(Dynamic::from_blob(value.call_method0("tobytes")?.extract()?));
    }
    if let Ok(range) = value.cast::<PyRange>() {
        let bound = |name| -> PyResult<INT> { fitting(&range.getattr(name)?) };
        if bound("step")? != 1 {
            return Err(PyValueError::new_err("a range for a script must have step 1").into());
        }
        return Ok(Dynamic::from(bound("start")?..bound("stop")?));
    }
    if let Ok(pointer) = value.cast::<FunctionPointer>() {
        if !pointer.get().is_known() {
            return Ok(callable(value)?); // this script has no such function, but Python can call it
        }
        return Ok(pointer.get().pointer(py)?.into());
    }
    if let Ok(timestamp) = value.cast::<Timestamp>() {
        return Ok(timestamp.get().0.into());
    }
    if value.is_instance(decimal_class(py)?)? {
        let text = value.str()?;
        let text = text.to_cow()?;
        let number = Decimal::from_str_exact(&text)
            .or_else(|_| Decimal::from_scientific(&text))
            .map_err(|error| PyValueError::new_err(format!("decimal {text}: {error}")))?;
        return Ok(number.into());
    }
    if value.is_instance(enum_class(py)?)? {
        return nested_to_rhai(&value.getattr("value")?, depth + 1);
    }
    if let Ok(items) = value.cast::<PyTuple>() {
        let plain = plain(value)?;
        if !plain.is(value) {
            return nested_to_rhai(&plain, depth); // of a named tuple
        }
        return array(items.iter(), depth);
    }
    if let Ok(items) = value.cast::<PyList>() {
        return array(items.iter(), depth);
    }
    if value.is_instance_of::<PySet>() || value.is_instance_of::<PyFrozenSet>() {
        let items = value.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        return array(items.into_iter(), depth);
    }
    if let Ok(entries) = value.cast::<PyMapping>() {
        let entries = entries
            .items()?
            .iter()
            .map(|entry| entry.extract())
            .collect::<PyResult<Vec<Entry<'_>>>>()?;
        return map(entries.into_iter().map(Ok), depth);
    }
    if !value.is_instance_of::<PyType>() {
        let plain = plain(value)?;
        if !plain.is(value) {
            return nested_to_rhai(&plain, depth + 1);
        }
        if value.is_callable() {
            return Ok(callable(value)?);
        }
    }
    if value.hasattr("__await__")? {
        if let Ok(close) = value.getattr("close") {
            close.call0()?; // else Python complains that nobody has awaited it
        }
        return Err(PyTypeError::new_err(
            "what is to be awaited cannot be passed to a script; a host function that awaits is defined with 'async def'",
        )
        .into());
    }
    Err(PyTypeError::new_err(format!(
        "an object of {} cannot be passed to a script; Engine.register_type makes a class known to it, \
         and Engine.convert says what to pass instead",
        value.get_type().qualname()?
    ))
    .into())
}

fn fitting(value: &Bound<'_, PyAny>) -> PyResult<INT> {
    value.extract().map_err(|_| {
        let number = crossing::text_of(value).unwrap_or_else(|| "without a text".to_owned());
        PyOverflowError::new_err(format!("integer {number} does not fit a script's 64 bits"))
    })
}

/// Convert the arguments of a script's function.
pub fn arguments(arguments: &Bound<'_, PyTuple>) -> PyResult<DropOnBigStack<Array>> {
    items(arguments.iter(), 0).map_err(|refused| refused.error(arguments.py(), "arguments"))
}

fn array<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> Converted {
    Ok(Dynamic::from_array(self::items(items, depth + 1)?.take()))
}

/// Convert each item. If one fails, those already converted may nest deeply, as the curried arguments of a function do.
fn items<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: usize,
) -> Result<DropOnBigStack<Array>, Box<Refused>> {
    let mut converted = DropOnBigStack::new(Array::with_capacity(items.size_hint().0));
    for item in items {
        go_on()?;
        let value = nested_to_rhai(&item, depth).map_err(|refused| refused.at_index(converted.len()))?;
        converted.push(value);
    }
    Ok(converted)
}

/// Fail if the script has been stopped that the value is for, or comes from: by its time or memory, which the value takes.
pub(super) fn go_on() -> PyResult<()> {
    if guard::step() {
        Err(PyRuntimeError::new_err("the script has been stopped"))
    } else {
        Ok(())
    }
}

/// A key and a value.
type Entry<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Return the entries of a dictionary. Their conversion may run code of the host: fail if that changes the dictionary.
fn entries_of<'py>(dict: &Bound<'py, PyDict>) -> impl Iterator<Item = PyResult<Entry<'py>>> {
    let (dict, length) = (dict.clone(), dict.len());
    let mut entries = dict.iter().take(length);
    iter::from_fn(move || {
        if dict.len() == length {
            return entries.next().map(Ok);
        }
        Some(Err(PyRuntimeError::new_err(
            "a dictionary changed while it was passed to a script",
        )))
    })
}

fn map<'py>(entries: impl Iterator<Item = PyResult<Entry<'py>>>, depth: usize) -> Converted {
    let mut map = DropOnBigStack::new(Map::new());
    for entry in entries {
        let (key, value) = entry?;
        go_on()?;
        let Ok(key) = key.cast_into::<PyString>() else {
            return Err(PyTypeError::new_err("the keys of a map for a script must be strings").into());
        };
        let key = key.to_str()?;
        let value = nested_to_rhai(&value, depth + 1).map_err(|refused| refused.at_key(key))?;
        let replaced = map.insert(key.into(), value);
        drop(replaced.map(DropOnBigStack::new));
    }
    Ok(Dynamic::from_map(map.take()))
}

/// Return a name as that of a variable; fail if no script can use it.
pub fn variable(name: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = name.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
    match text {
        Some(text) if is_valid_function_name(text) => Ok(text.to_owned()),
        _ => Err(refusal("variable", name)),
    }
}

/// Convert a mapping of names to values.
///
/// `what`: the mapping's own name, for errors.
pub fn entries(mapping: &Bound<'_, PyAny>, what: &str) -> PyResult<DropOnBigStack<Vec<(String, Dynamic)>>> {
    let mut entries = DropOnBigStack::new(Vec::new());
    let mut add = |name: Bound<'_, PyAny>, value: Bound<'_, PyAny>| -> PyResult<()> {
        let name = variable(&name)?;
        let value = to_rhai(&value, &name)?;
        entries.push((name, value));
        Ok(())
    };
    if let Ok(dict) = mapping.cast::<PyDict>() {
        entries_of(dict).try_for_each(|entry| entry.and_then(|(name, value)| add(name, value)))?;
    } else {
        let mapping = mapping.cast::<PyMapping>().map_err(|_| refusal(what, mapping))?;
        for item in mapping.items()? {
            let (name, value) = item.extract()?;
            add(name, value)?;
        }
    }
    Ok(entries)
}

/// Make a function pointer of a Python callable.
fn callable(value: &Bound<'_, PyAny>) -> PyResult<Dynamic> {
    let named = |name: String| {
        let function = value.clone().unbind();
        // "Deprecated" means that it may change. The version of Rhai is pinned.
        #[allow(deprecated)]
        FnPtr::from_fn(name, move |context, arguments| {
            call(&context, &function, arguments)
        })
    };
    let name = value
        .getattr("__name__")
        .and_then(|name| name.extract::<String>());
    name.map_or_else(
        |_| named("python".to_owned()),
        |name| named(name).or_else(|_| named("python".to_owned())),
    )
    .map(Into::into)
    .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Call a Python function for a script, unless the script has been stopped.
pub fn call(
    context: &NativeCallContext<'_>,
    function: &Py<PyAny>,
    arguments: &mut [&mut Dynamic],
) -> Result<Dynamic, Box<EvalAltResult>> {
    guard::proceed()?; // the check that found the stop lets one operation pass, see `Frame::ends`
    evaluation::serve(context, |py| {
        let arguments = arguments
            .iter()
            .map(|value| to_python(py, value))
            .collect::<PyResult<Vec<_>>>()?;
        let value = function.bind(py).call1(PyTuple::new(py, arguments)?)?;
        nested_to_rhai(&value, 0).map_err(|refused| returned_by(context, py, *refused))
    })
}

#[cold]
fn returned_by(context: &NativeCallContext<'_>, py: Python<'_>, refused: Refused) -> PyErr {
    refused.error(py, &format!("{}()", context.fn_name()))
}

/// Return a value that stands for one that is not known here; the value itself if there is none.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    PLAIN
        .import(value.py(), "rhai_tasks.engine.conversion", "plain")?
        .call1((value,))
}

fn enum_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "enum", "Enum")
}
