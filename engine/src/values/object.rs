//! Python objects as values of scripts: each class has a Rhai type of its own.
//!
//! Rhai tells types apart by Rust's `TypeId`, so each class takes one of a fixed number of Rust types.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyType};
use rhai::{Dynamic, Engine, EvalAltResult};

use crate::{border, host, values};

/// An object of the class in slot `N`. A copy is the same object, as it is in Python.
#[derive(Clone)]
struct Object<const N: usize>(Arc<Py<PyAny>>);

/// What differs between the Rust types of the slots.
struct Slot {
    type_id: fn() -> TypeId,
    wrap: fn(Arc<Py<PyAny>>) -> Dynamic,
    unwrap: fn(&Dynamic) -> Option<Arc<Py<PyAny>>>,
    register: fn(&mut Engine, &str, bool),
}

impl<const N: usize> Object<N> {
    const SLOT: Slot = Slot {
        type_id: TypeId::of::<Self>,
        wrap: |object| Dynamic::from(Self(object)),
        unwrap: |value| value.read_lock::<Self>().map(|object| Arc::clone(&object.0)),
        register: |engine, name, iterable| {
            engine.register_type_with_name::<Self>(name);
            if iterable {
                engine.register_iterator_result::<Self, Dynamic>();
            }
        },
    };
}

macro_rules! slots {
    ($($n:literal)*) => { [$(Object::<$n>::SLOT),*] };
}

static SLOTS: [Slot; 64] = slots! {
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
};

static SLOT_OF_TYPE: LazyLock<HashMap<TypeId, &'static Slot>> =
    LazyLock::new(|| SLOTS.iter().map(|slot| ((slot.type_id)(), slot)).collect());

/// Class to slot.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

fn classes(py: Python<'_>) -> &Bound<'_, PyDict> {
    CLASSES.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// Return the slot of a class; a class without one takes the next, for the life of the process.
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

/// The Rhai type of a slot.
pub fn type_id(slot: usize) -> Option<TypeId> {
    SLOTS.get(slot).map(|slot| (slot.type_id)())
}

/// Name a class's type, and let scripts iterate over its objects.
pub fn register(engine: &mut Engine, slot: usize, name: &str, iterable: bool) {
    if let Some(slot) = SLOTS.get(slot) {
        (slot.register)(engine, name, iterable);
    }
}

/// Make a value of an object whose class, or a base of it, has a slot.
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

/// The object that a value is, if it is one.
pub fn unwrap(value: &Dynamic) -> Option<Arc<Py<PyAny>>> {
    SLOT_OF_TYPE
        .get(&value.type_id())
        .and_then(|slot| (slot.unwrap)(value))
}

impl<const N: usize> IntoIterator for Object<N> {
    type Item = Result<Dynamic, Box<EvalAltResult>>;
    type IntoIter = Items;

    fn into_iter(self) -> Items {
        Items::of(&self.0)
    }
}

/// What is left of an object's iteration; an error is its last item.
struct Items(Option<Result<Py<PyIterator>, Box<EvalAltResult>>>);

impl Items {
    // Not for each slot anew.
    #[inline(never)]
    fn of(object: &Py<PyAny>) -> Self {
        Self(Some(
            border::python(|py| object.bind(py).try_iter().map(Bound::unbind)).map_err(host::error),
        ))
    }
}

impl Iterator for Items {
    type Item = Result<Dynamic, Box<EvalAltResult>>;

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        match self.0.take()? {
            Err(error) => Some(Err(error)),
            Ok(iterator) => {
                let next = border::python(|py| {
                    let item = iterator.bind(py).clone().next()?;
                    Some(item.and_then(|item| values::to_rhai(&item)))
                })?
                .map_err(host::error);
                if next.is_ok() {
                    self.0 = Some(Ok(iterator));
                }
                Some(next)
            }
        }
    }
}
