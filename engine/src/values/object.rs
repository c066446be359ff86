//! Python objects as values of scripts: each class has its own Rhai type.
//!
//! Rhai distinguishes types by Rust's `TypeId`, so each class takes one of a fixed number of Rust types, its slot.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use rhai::{Dynamic, Engine};

/// An object of the class in slot `N`. A copy is the same object, as it is in Python.
#[derive(Clone)]
struct Object<const N: usize>(Arc<Py<PyAny>>);

/// The functions that differ between the Rust types of the slots.
struct Slot {
    type_id: fn() -> TypeId,
    wrap: fn(Arc<Py<PyAny>>) -> Dynamic,
    unwrap: fn(&Dynamic) -> Option<Arc<Py<PyAny>>>,
    register: fn(&mut Engine, &str),
}

impl<const N: usize> Object<N> {
    const SLOT: Slot = Slot {
        type_id: TypeId::of::<Self>,
        wrap: |object| Dynamic::from(Self(object)),
        unwrap: |value| value.read_lock::<Self>().map(|object| Arc::clone(&object.0)),
        register: |engine, name| {
            engine.register_type_with_name::<Self>(name);
        },
    };
}

macro_rules! slots {
    ($($n:literal)*) => { [$(Object::<$n>::SLOT),*] };
}

static SLOTS: [Slot; 64] = slots![
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
];

static SLOT_OF_TYPE: LazyLock<HashMap<TypeId, &'static Slot>> =
    LazyLock::new(|| SLOTS.iter().map(|slot| ((slot.type_id)(), slot)).collect());

/// The slot of each class.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

fn classes(py: Python<'_>) -> &Bound<'_, PyDict> {
    CLASSES.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// Return the slot of a class. A class without one takes the next, for the life of the process.
///
/// Raises:
///     OverflowError: All 64 are taken.
#[pyfunction]
pub fn class_slot(class: &Bound<'_, PyType>) -> PyResult<usize> {
    let classes = classes(class.py());
    if let Some(slot) = classes.get_item(class)? {
        return slot.extract();
    }
    let slot = classes.len();
    if slot >= SLOTS.len() {
        return Err(PyOverflowError::new_err(format!(
            "scripts can know at most {} Python classes in one process",
            SLOTS.len()
        )));
    }
    classes.set_item(class, slot)?;
    Ok(slot)
}

/// Return the Rhai type of a slot.
pub fn type_id(slot: usize) -> Option<TypeId> {
    SLOTS.get(slot).map(|slot| (slot.type_id)())
}

/// Set the name of a class's type.
pub fn register(engine: &mut Engine, slot: usize, name: &str) {
    if let Some(slot) = SLOTS.get(slot) {
        (slot.register)(engine, name);
    }
}

/// Wrap an object whose class, or a base class of it, has a slot.
pub fn wrap(value: &Bound<'_, PyAny>) -> PyResult<Option<Dynamic>> {
    let classes = classes(value.py());
    for class in value.get_type().mro() {
        if let Some(slot) = classes.get_item(class)? {
            let slot = slot.extract::<usize>()?;
            return Ok(SLOTS
                .get(slot)
                .map(|slot| (slot.wrap)(Arc::new(value.clone().unbind()))));
        }
    }
    Ok(None)
}

/// Return the object in a value, if it is one.
pub fn unwrap(value: &Dynamic) -> Option<Arc<Py<PyAny>>> {
    SLOT_OF_TYPE
        .get(&value.type_id())
        .and_then(|slot| (slot.unwrap)(value))
}
