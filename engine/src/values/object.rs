//! Python objects as values of scripts: each class has its own Rhai type.
//!
//! Rhai distinguishes types by Rust's `TypeId`, so an engine gives each of its classes one of a fixed number of Rust types,
//! a slot.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use pyo3::prelude::*;
use rhai::{Dynamic, Engine};

use crate::values::known;

/// An object of the class in slot `N`. A copy is the same object, as it is in Python.
#[derive(Clone)]
struct Object<const N: usize>(Arc<Py<PyAny>>);

/// What differs between the Rust types of the slots. Each function is compiled 65 times, so it does the least.
struct Slot {
    type_id: fn() -> TypeId,
    type_name: fn() -> &'static str,
    wrap: fn(Arc<Py<PyAny>>) -> Dynamic,
    /// Takes a value that is not shared.
    unwrap: fn(&Dynamic) -> Option<Arc<Py<PyAny>>>,
}

impl<const N: usize> Object<N> {
    const SLOT: Slot = Slot {
        type_id: TypeId::of::<Self>,
        type_name: type_name::<Self>,
        wrap: |object| Dynamic::from(Self(object)),
        unwrap: |value| {
            // Known from here on, so that the code that waits for a shared value's lock is left out.
            if value.is_shared() {
                return None;
            }
            value.read_lock::<Self>().map(|object| Arc::clone(&object.0))
        },
    };
}

macro_rules! slots {
    ($($n:literal)*) => { [$(Object::<$n>::SLOT),*] };
}

/// An engine has 64 for classes.
static SLOTS: [Slot; 65] = slots![
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
    64
];

static SLOT_OF_TYPE: LazyLock<HashMap<TypeId, &'static Slot>> =
    LazyLock::new(|| SLOTS.iter().map(|slot| ((slot.type_id)(), slot)).collect());

/// The slot of objects that were put into a scope outside of engines. `place` moves them to that of their class.
const UNPLACED: usize = SLOTS.len() - 1;

/// Return the Rhai type of a slot.
pub fn type_id(slot: usize) -> Option<TypeId> {
    SLOTS.get(slot).map(|slot| (slot.type_id)())
}

/// Set the name of a class's type.
pub fn register(engine: &mut Engine, slot: usize, name: &str) {
    if let Some(slot) = SLOTS.get(slot) {
        engine.register_type_with_name_raw((slot.type_name)(), name);
    }
}

/// Put the names of classes in place of those of the Rust types, which Rhai writes into some texts.
pub fn with_names(engine: &Engine, mut text: String) -> String {
    let start = type_name::<Object<0>>().trim_end_matches("0>");
    if text.contains(start) {
        for slot in &SLOTS {
            let rust = (slot.type_name)();
            if text.contains(rust) {
                text = text.replace(rust, engine.map_type_name(rust));
            }
        }
    }
    text
}

/// Wrap an object whose class, or a base class of it, is a type of the engine that this thread uses.
pub fn wrap(value: &Bound<'_, PyAny>) -> PyResult<Option<Dynamic>> {
    let slot = known::slot(value, UNPLACED)?.and_then(|slot| SLOTS.get(slot));
    Ok(slot.map(|slot| (slot.wrap)(Arc::new(value.clone().unbind()))))
}

/// Return the object in a value, if it is one.
pub fn unwrap(value: &Dynamic) -> Option<Arc<Py<PyAny>>> {
    let slot = SLOT_OF_TYPE.get(&value.type_id())?;
    if value.is_shared() {
        return (slot.unwrap)(&value.flatten_clone());
    }
    (slot.unwrap)(value)
}
