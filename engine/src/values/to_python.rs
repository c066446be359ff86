//! Converts values of scripts for Python. It drops nothing and turns nothing into text: a value without a counterpart is an
//! error.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::time::Instant;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyRange, PyString, PyType};
use rhai::{Array, Blob, Dynamic, FLOAT, FnPtr, INT, ImmutableString, Map};
use rust_decimal::Decimal;

use crate::bounds::guard;
use crate::crossing::origin::Origin;
use crate::crossing::stack::{self, DropOnBigStack, MayNestDeeply};
use crate::values::from_python::go_on;
use crate::values::placing::Placing;
use crate::values::{known, object};

/// Levels of nesting. The limit also ends the conversion of a value that contains itself.
pub(super) const MAX_DEPTH: usize = 100;

/// A script's pointer to a function.
#[pyclass(frozen, name = "FnPtr", module = "rhai_tasks.engine._engine")]
pub struct FunctionPointer {
    pub pointer: DropOnBigStack<FnPtr>,
    /// The classes of the engine that the objects in its curried arguments have their types of.
    pub classes: Option<Py<PyDict>>,
    /// The engine and the script that know the function.
    pub origin: Option<Origin>,
}

impl FunctionPointer {
    /// Whether the script that this thread runs knows the function.
    pub fn is_known(&self) -> bool {
        self.origin.as_ref().is_none_or(Origin::is_current)
    }

    /// Return the pointer as the engine that this thread uses knows it.
    pub fn pointer(&self, py: Python<'_>) -> PyResult<FnPtr> {
        stack::roomy(|| {
            let mut pointer = FnPtr::clone(&self.pointer);
            if pointer.is_curried() && !known::is_current(py, self.classes.as_ref()) {
                Placing::default().place_curried(&mut pointer, self.pointer.fn_name())?;
            }
            Ok(pointer)
        })
    }
}

/// A moment of the engine's monotonic clock, from `timestamp()`.
#[pyclass(frozen, eq, ord, hash, module = "rhai_tasks.engine._engine")]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub(super) Instant);

#[pymethods]
impl Timestamp {
    /// Seconds since this moment.
    #[getter]
    fn elapsed(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    /// Return the same object: it never changes.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }
}

/// What a conversion has made.
#[derive(Default)]
struct Conversion {
    /// Texts by address: a script can hold a long text any number of times at no cost.
    texts: HashMap<*const u8, Py<PyAny>>,
    /// Bytes of Python objects, and how many the script's memory limit leaves for them; unknown until there are many.
    bytes: usize,
    room: Option<usize>,
}

impl Conversion {
    /// Count objects. Fail if they take more memory than the script has left, or if it has been stopped.
    fn count(&mut self, bytes: usize) -> PyResult<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > *self.room.get_or_insert_with(guard::remaining) {
            let _ = guard::out_of_memory(); // `go_on` fails
        }
        go_on()
    }

    fn text<'py>(&mut self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyString>> {
        if text.len() >= LONG_TEXT {
            self.count(text_size(text))?;
        }
        Ok(PyString::new(py, text))
    }
}

/// Return about the bytes of a text in Python, whose characters are all as wide as the widest.
fn text_size(text: &str) -> usize {
    match text.bytes().max() {
        None | Some(..0x80) => text.len(),
        Some(..0xc4) => text.chars().count(),
        Some(..0xf0) => 2 * text.chars().count(),
        Some(_) => 4 * text.chars().count(),
    }
}

/// Return about the bytes of a value's Python object, without its items and without a text that is counted once.
fn size(value: &Dynamic) -> usize {
    if value.is_unit() || value.is_bool() {
        0
    } else if let Some(number) = value.read_lock::<INT>() {
        if (-5..=256).contains(&*number) { 0 } else { 32 }
    } else if let Some(letter) = value.read_lock::<char>() {
        if *letter <= '\u{ff}' { 0 } else { 76 }
    } else if let Some(items) = value.read_lock::<Array>() {
        56 + 16 * items.len() // and a list of them while they are made
    } else if let Some(entries) = value.read_lock::<Map>() {
        64 + 100 * entries.len()
    } else if let Some(bytes) = value.read_lock::<Blob>() {
        33 + bytes.len()
    } else {
        32
    }
}

/// The shortest text that is remembered, in bytes.
const LONG_TEXT: usize = 64;

/// The keys of a map, in order. Neighbouring maps mostly have the same keys, and then share them.
type Keys<'py> = Vec<Bound<'py, PyString>>;

/// Convert a script's value.
pub fn to_python(py: Python<'_>, value: &Dynamic) -> PyResult<Py<PyAny>> {
    let mut made = Conversion::default();
    if !value.is_flat() {
        made.count(size(value))?;
    }
    nested_to_python(py, value, &mut made, &mut Keys::new(), 0)
}

/// Convert a text.
pub fn text_to_python(py: Python<'_>, text: &str) -> PyResult<Py<PyAny>> {
    Ok(Conversion::default().text(py, text)?.into_any().unbind())
}

/// `keys`: those of the neighbouring map.
fn nested_to_python<'py>(
    py: Python<'py>,
    value: &Dynamic,
    made: &mut Conversion,
    keys: &mut Keys<'py>,
    depth: usize,
) -> PyResult<Py<PyAny>> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "the script's value is nested deeper than {MAX_DEPTH} levels"
        )));
    }
    // Not `as_int` and so on: for a value of another type these look up its name, for the error.
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
        if text.len() < LONG_TEXT {
            return Ok(PyString::new(py, &text).into_any().unbind());
        }
        if let Some(known) = made.texts.get(&text.as_ptr()) {
            return Ok(known.clone_ref(py));
        }
        let converted = made.text(py, &text)?.into_any().unbind();
        made.texts.insert(text.as_ptr(), converted.clone_ref(py));
        return Ok(converted);
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
            .map(|item| {
                made.count(size(item))?;
                nested_to_python(py, item, made, &mut keys, depth + 1)
            })
            .collect::<PyResult<Vec<_>>>()?;
        return Ok(PyList::new(py, items)?.into_any().unbind());
    }
    if let Some(entries) = value.read_lock::<Map>() {
        let dict = PyDict::new(py);
        let mut inner = Keys::new();
        for (place, (key, value)) in entries.iter().enumerate() {
            made.count(size(value))?;
            let value = nested_to_python(py, value, made, &mut inner, depth + 1)?;
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

/// Take a map's key from the neighbouring map, if that has the same key at this place.
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
        let pointer = FunctionPointer {
            pointer: stack::roomy(|| DropOnBigStack::new(pointer.clone())),
            classes: known::classes(py),
            origin: Origin::current(py),
        };
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

pub(super) fn decimal_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "decimal", "Decimal")
}
