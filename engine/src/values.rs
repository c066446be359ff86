//! Values between Python and Rhai. Nothing is dropped or turned into text on the way: what has no
//! counterpart is an error.

use std::str::FromStr;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyRange, PyString, PyTuple};
use rhai::{Array, Blob, Dynamic, INT, Map};
use rust_decimal::Decimal;

/// Levels of nesting; also what ends a structure that contains itself.
const MAX_DEPTH: usize = 100;

/// Convert a Python value.
pub fn to_rhai(value: &Bound<'_, PyAny>) -> PyResult<Dynamic> {
    nested_to_rhai(value, 0)
}

fn nested_to_rhai(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Dynamic> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "the value is nested deeper than {MAX_DEPTH} levels, or contains itself"
        )));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text.to_str()?.into());
    }
    if value.is_none() {
        return Ok(Dynamic::UNIT);
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(truth.is_true().into());
    }
    if value.is_instance_of::<PyInt>() {
        return value.extract::<INT>().map(Into::into).map_err(|_| {
            PyOverflowError::new_err(format!("integer {value} does not fit a script's 64 bits"))
        });
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(number.value().into());
    }
    if let Ok(items) = value.cast::<PyList>() {
        return array(items.iter(), depth);
    }
    if let Ok(items) = value.cast::<PyTuple>() {
        return array(items.iter(), depth);
    }
    if let Ok(entries) = value.cast::<PyDict>() {
        return map(entries, depth);
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Dynamic::from_blob(bytes.as_bytes().to_vec()));
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Ok(Dynamic::from_blob(bytes.to_vec()));
    }
    if let Ok(range) = value.cast::<PyRange>() {
        let bound = |name| -> PyResult<INT> { range.getattr(name)?.extract() };
        if bound("step")? != 1 {
            return Err(PyValueError::new_err("a range for a script must have step 1"));
        }
        return Ok(Dynamic::from(bound("start")?..bound("stop")?));
    }
    if value.is_instance(&decimal_class(value.py())?)? {
        return Decimal::from_str(&value.str()?.to_cow()?)
            .map(Into::into)
            .map_err(|error| PyValueError::new_err(format!("decimal {value}: {error}")));
    }
    Err(PyTypeError::new_err(format!(
        "a {} cannot be passed to a script",
        value.get_type().qualname()?
    )))
}

fn array<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> PyResult<Dynamic> {
    let items: Array = items
        .map(|item| nested_to_rhai(&item, depth + 1))
        .collect::<PyResult<_>>()?;
    Ok(Dynamic::from_array(items))
}

fn map(entries: &Bound<'_, PyDict>, depth: usize) -> PyResult<Dynamic> {
    let mut map = Map::new();
    for (key, value) in entries {
        let Ok(key) = key.cast_into::<PyString>() else {
            return Err(PyTypeError::new_err(
                "the keys of a map for a script must be strings",
            ));
        };
        map.insert(key.to_str()?.into(), nested_to_rhai(&value, depth + 1)?);
    }
    Ok(Dynamic::from_map(map))
}

/// Convert a script's value.
pub fn to_python(py: Python<'_>, value: &Dynamic) -> PyResult<Py<PyAny>> {
    nested_to_python(py, value, 0)
}

fn nested_to_python(py: Python<'_>, value: &Dynamic, depth: usize) -> PyResult<Py<PyAny>> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "the script's value is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    if value.is_unit() {
        return Ok(py.None());
    }
    if let Ok(truth) = value.as_bool() {
        return Ok(PyBool::new(py, truth).to_owned().into_any().unbind());
    }
    if let Ok(number) = value.as_int() {
        return Ok(number.into_pyobject(py)?.into_any().unbind());
    }
    if let Ok(number) = value.as_float() {
        return Ok(PyFloat::new(py, number).into_any().unbind());
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(PyString::new(py, &text).into_any().unbind());
    }
    if let Ok(letter) = value.as_char() {
        return Ok(PyString::new(py, letter.encode_utf8(&mut [0; 4]))
            .into_any()
            .unbind());
    }
    if let Ok(items) = value.as_array_ref() {
        let list = PyList::empty(py);
        for item in items.iter() {
            list.append(nested_to_python(py, item, depth + 1)?)?;
        }
        return Ok(list.into_any().unbind());
    }
    if let Ok(entries) = value.as_map_ref() {
        let dict = PyDict::new(py);
        for (key, value) in entries.iter() {
            dict.set_item(key.as_str(), nested_to_python(py, value, depth + 1)?)?;
        }
        return Ok(dict.into_any().unbind());
    }
    if let Ok(bytes) = value.as_blob_ref() {
        let bytes: &Blob = &bytes;
        return Ok(PyBytes::new(py, bytes).into_any().unbind());
    }
    if let Ok(number) = value.as_decimal() {
        return Ok(decimal_class(py)?.call1((number.to_string(),))?.unbind());
    }
    if let Some(range) = value.read_lock::<std::ops::Range<INT>>() {
        return Ok(PyRange::new(py, range.start as isize, range.end as isize)?
            .into_any()
            .unbind());
    }
    if let Some(range) = value.read_lock::<std::ops::RangeInclusive<INT>>() {
        let stop = range
            .end()
            .checked_add(1)
            .ok_or_else(|| PyOverflowError::new_err("the range has no end in Python"))?;
        return Ok(PyRange::new(py, *range.start() as isize, stop as isize)?
            .into_any()
            .unbind());
    }
    Err(PyTypeError::new_err(format!(
        "a script's {} has no counterpart in Python",
        value.type_name()
    )))
}

fn decimal_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "decimal"))?.getattr(intern!(py, "Decimal"))
}
