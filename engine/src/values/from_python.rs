//! Values between Python and Rhai. Nothing is dropped or turned into text on the way: what has no
//! counterpart is an error.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::time::Instant;

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping, PyMemoryView,
    PyRange, PySet, PyString, PyTuple, PyType,
};
use rhai::{Array, Blob, Dynamic, FLOAT, FnPtr, INT, ImmutableString, Map};
use rust_decimal::Decimal;

use crate::garbage::Objects;
use crate::stack::Deep;
use crate::{host, object, stack};

/// Levels of nesting; also what ends a structure that contains itself.
const MAX_DEPTH: usize = 100;

/// A script's pointer to a function.
#[pyclass(frozen, name = "FnPtr", module = "rhai_tasks._engine")]
pub struct FunctionPointer(pub Deep<FnPtr>);

impl FunctionPointer {
    pub fn pointer(&self) -> FnPtr {
        stack::roomy(|| FnPtr::clone(&self.0))
    }
}

#[pymethods]
impl FunctionPointer {
    /// The function's name; a closure's is made up by the engine.
    #[getter]
    fn name(&self) -> &str {
        self.0.fn_name()
    }

    /// Call it, inside the host function that the script gave it to; elsewhere there is `Engine.call`.
    #[pyo3(signature = (*arguments))]
    fn __call__(&self, py: Python<'_>, arguments: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        let arguments = items(arguments.iter(), 0)?;
        let value = host::call_back(py, &self.0, arguments).ok_or_else(|| {
            PyRuntimeError::new_err(
                "a script's function can be called only by the host function it was given to; \
                 elsewhere use Engine.call(ast, function, ...)",
            )
        })??;
        to_python(py, &Deep::new(value))
    }

    fn __repr__(&self) -> String {
        format!("FnPtr({:?})", self.0.fn_name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut objects = Objects::default();
        self.0.iter_curry().for_each(|value| objects.add(value));
        objects.visit(1, &visit)
    }
}

/// A moment of the engine's monotonic clock, from `timestamp()`.
#[pyclass(frozen, module = "rhai_tasks._engine")]
pub struct Timestamp(Instant);

#[pymethods]
impl Timestamp {
    /// Seconds since then.
    #[getter]
    fn elapsed(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

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
    // What most values are comes first; a class of one's own may be known to scripts as a type.
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
        return integer(value);
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
        return map(entries.iter(), depth);
    }
    if let Some(object) = object::wrap(value)? {
        return Ok(object);
    }
    other_to_rhai(value, depth)
}

fn other_to_rhai(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Dynamic> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text.to_str()?.into());
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value);
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
            return Err(PyValueError::new_err("a range for a script must have step 1"));
        }
        return Ok(Dynamic::from(bound("start")?..bound("stop")?));
    }
    if let Ok(pointer) = value.cast::<FunctionPointer>() {
        return Ok(pointer.get().pointer().into());
    }
    if let Ok(timestamp) = value.cast::<Timestamp>() {
        return Ok(timestamp.get().0.into());
    }
    if value.is_instance(decimal_class(py)?)? {
        let text = value.str()?;
        let text = text.to_cow()?;
        return Decimal::from_str_exact(&text)
            .or_else(|_| Decimal::from_scientific(&text))
            .map(Into::into)
            .map_err(|error| PyValueError::new_err(format!("decimal {value}: {error}")));
    }
    if value.is_instance(enum_class(py)?)? {
        return nested_to_rhai(&value.getattr("value")?, depth + 1);
    }
    if let Ok(items) = value.cast::<PyTuple>() {
        if let Ok(names) = value.getattr("_fields") {
            return attributes(value, names.try_iter()?, depth);
        }
        return array(items.iter(), depth);
    }
    if let Ok(items) = value.cast::<PyList>() {
        return array(items.iter(), depth);
    }
    if let Ok(items) = value.cast::<PySet>() {
        return array(items.iter(), depth);
    }
    if let Ok(items) = value.cast::<PyFrozenSet>() {
        return array(items.iter(), depth);
    }
    if let Ok(entries) = value.cast::<PyMapping>() {
        let entries = entries
            .items()?
            .iter()
            .map(|entry| entry.extract())
            .collect::<PyResult<Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>>>()?;
        return map(entries.into_iter(), depth);
    }
    if !value.is_instance_of::<PyType>() {
        if let Ok(fields) = value.getattr("__dataclass_fields__") {
            return attributes(value, fields.try_iter()?, depth);
        }
        if value.is_callable() {
            return callable(value);
        }
    }
    if value.hasattr("__await__")? {
        if let Ok(close) = value.getattr("close") {
            close.call0()?; // else Python complains that nobody has awaited it
        }
        return Err(PyTypeError::new_err(
            "what is to be awaited cannot be passed to a script; a host function that awaits is defined with 'async def'",
        ));
    }
    Err(PyTypeError::new_err(format!(
        "an object of {} cannot be passed to a script; Engine.register_type makes a class known to it",
        value.get_type().qualname()?
    )))
}

fn integer(value: &Bound<'_, PyAny>) -> PyResult<Dynamic> {
    fitting(value).map(Into::into)
}

fn fitting(value: &Bound<'_, PyAny>) -> PyResult<INT> {
    value
        .extract()
        .map_err(|_| PyOverflowError::new_err(format!("integer {value} does not fit a script's 64 bits")))
}

fn array<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> PyResult<Dynamic> {
    Ok(Dynamic::from_array(self::items(items, depth + 1)?.take()))
}

/// Convert each; those that there are when one cannot be converted may be deep, as what a function has curried is.
pub fn items<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> PyResult<Deep<Array>> {
    let mut converted = Deep::new(Array::with_capacity(items.size_hint().0));
    for item in items {
        converted.push(nested_to_rhai(&item, depth)?);
    }
    Ok(converted)
}

fn map<'py>(
    entries: impl Iterator<Item = (Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    depth: usize,
) -> PyResult<Dynamic> {
    let mut map = Deep::new(Map::new());
    for (key, value) in entries {
        let Ok(key) = key.cast_into::<PyString>() else {
            return Err(PyTypeError::new_err(
                "the keys of a map for a script must be strings",
            ));
        };
        let replaced = map.insert(key.to_str()?.into(), nested_to_rhai(&value, depth + 1)?);
        drop(replaced.map(Deep::new));
    }
    Ok(Dynamic::from_map(map.take()))
}

/// Make a map of an object's attributes of these names.
fn attributes<'py>(
    value: &Bound<'py, PyAny>,
    names: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    depth: usize,
) -> PyResult<Dynamic> {
    let entries = names
        .map(|name| {
            let name = name?;
            let attribute = value.getattr(name.cast::<PyString>()?)?;
            Ok((name, attribute))
        })
        .collect::<PyResult<Vec<_>>>()?;
    map(entries.into_iter(), depth)
}

/// Make a function pointer of a Python callable.
fn callable(value: &Bound<'_, PyAny>) -> PyResult<Dynamic> {
    let named = |name: String| {
        let function = value.clone().unbind();
        // "Deprecated" marks it as one that may change; the version of Rhai is pinned.
        #[allow(deprecated)]
        FnPtr::from_fn(name, move |context, arguments| {
            host::call(&context, &function, arguments)
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

/// Texts that were converted already, by their address: a script holds a long one any number of times at no cost.
type Texts = HashMap<*const u8, Py<PyAny>>;

/// Bytes from which on a text is remembered.
const LONG_TEXT: usize = 64;

/// The keys of a map, in order. Maps beside each other mostly have the same, and then share them.
type Keys<'py> = Vec<Bound<'py, PyString>>;

/// Convert a script's value.
pub fn to_python(py: Python<'_>, value: &Dynamic) -> PyResult<Py<PyAny>> {
    nested_to_python(py, value, &mut Texts::new(), &mut Keys::new(), 0)
}

/// `keys` are those of the map beside.
fn nested_to_python<'py>(
    py: Python<'py>,
    value: &Dynamic,
    texts: &mut Texts,
    keys: &mut Keys<'py>,
    depth: usize,
) -> PyResult<Py<PyAny>> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "the script's value is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    // Not `as_int` and so on: whatever is no integer would have its type's name looked up, for the error.
    if value.is_unit() {
        return Ok(py.None());
    }
    if let Some(truth) = value.read_lock::<bool>() {
        return Ok(PyBool::new(py, *truth).to_owned().into_any().unbind());
    }
    if let Some(number) = value.read_lock::<INT>() {
        return Ok(number.into_pyobject(py)?.into_any().unbind());
    }
    if let Some(number) = value.read_lock::<FLOAT>() {
        return Ok(PyFloat::new(py, *number).into_any().unbind());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        let convert = || PyString::new(py, &text).into_any().unbind();
        if text.len() < LONG_TEXT {
            return Ok(convert());
        }
        return Ok(texts.entry(text.as_ptr()).or_insert_with(convert).clone_ref(py));
    }
    if let Some(letter) = value.read_lock::<char>() {
        return Ok(PyString::new(py, letter.encode_utf8(&mut [0; 4]))
            .into_any()
            .unbind());
    }
    if let Some(items) = value.read_lock::<Array>() {
        let mut keys = Keys::new();
        let items = items
            .iter()
            .map(|item| nested_to_python(py, item, texts, &mut keys, depth + 1))
            .collect::<PyResult<Vec<_>>>()?;
        return Ok(PyList::new(py, items)?.into_any().unbind());
    }
    if let Some(entries) = value.read_lock::<Map>() {
        let dict = PyDict::new(py);
        let mut inner = Keys::new();
        for (place, (key, value)) in entries.iter().enumerate() {
            let value = nested_to_python(py, value, texts, &mut inner, depth + 1)?;
            dict.set_item(key_to_python(py, key, keys, place), value)?;
        }
        return Ok(dict.into_any().unbind());
    }
    if let Some(bytes) = value.read_lock::<Blob>() {
        return Ok(PyBytes::new(py, &bytes).into_any().unbind());
    }
    if let Some(number) = value.read_lock::<Decimal>() {
        return Ok(decimal_class(py)?.call1((number.to_string(),))?.unbind());
    }
    if let Some(object) = object::unwrap(value) {
        return Ok(object.clone_ref(py));
    }
    other_to_python(py, value)
}

/// Take a map's key from the map beside, if that has the same at this place.
fn key_to_python<'a, 'py>(
    py: Python<'py>,
    key: &str,
    keys: &'a mut Keys<'py>,
    place: usize,
) -> &'a Bound<'py, PyString> {
    let known = keys.get(place).and_then(|known| known.to_str().ok());
    if known != Some(key) {
        keys.truncate(place);
        keys.push(PyString::new(py, key));
    }
    &keys[place]
}

fn other_to_python(py: Python<'_>, value: &Dynamic) -> PyResult<Py<PyAny>> {
    if let Some(range) = value.read_lock::<Range<INT>>() {
        return Ok(PyRange::new(py, range.start as isize, range.end as isize)?
            .into_any()
            .unbind());
    }
    if let Some(range) = value.read_lock::<RangeInclusive<INT>>() {
        let stop = range
            .end()
            .checked_add(1)
            .ok_or_else(|| PyOverflowError::new_err("the range has no end in Python"))?;
        return Ok(PyRange::new(py, *range.start() as isize, stop as isize)?
            .into_any()
            .unbind());
    }
    if let Some(pointer) = value.read_lock::<FnPtr>() {
        let pointer = FunctionPointer(stack::roomy(|| Deep::new(pointer.clone())));
        return Ok(Bound::new(py, pointer)?.into_any().unbind());
    }
    if let Some(moment) = value.read_lock::<Instant>() {
        return Ok(Bound::new(py, Timestamp(*moment))?.into_any().unbind());
    }
    macro_rules! numbers {
        ($($number:ty)*) => {
            $(if let Some(number) = value.read_lock::<$number>() {
                return Ok(number.into_pyobject(py)?.into_any().unbind());
            })*
        };
    }
    numbers!(u8 u16 u32 u64 u128 i8 i16 i32 i128 f32);
    Err(PyTypeError::new_err(format!(
        "a script's {} has no counterpart in Python",
        value.type_name()
    )))
}

fn decimal_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "decimal", "Decimal")
}

fn enum_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "enum", "Enum")
}
