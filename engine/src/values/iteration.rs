//! How scripts iterate over Python objects.

use std::mem;

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use rhai::{Dynamic, EvalAltResult, Module, Shared};

use crate::crossing::{self, evaluation};
use crate::values::from_python::to_rhai;
use crate::values::object;

/// Make a module that lets scripts iterate over objects of the classes in these slots; `None` if there are none.
pub fn module(slots: impl Iterator<Item = usize>) -> Option<Shared<Module>> {
    let mut module = Module::new();
    let mut is_empty = true;
    for type_id in slots.filter_map(object::type_id) {
        module.set_iter_result(type_id, |value| Box::new(Items::of(&value)));
        is_empty = false;
    }
    (!is_empty).then(|| module.into())
}

/// The rest of an object's iteration.
enum Items {
    Rest(Py<PyIterator>),
    /// It has failed: its last item.
    Failed(PyErr),
    /// The last item was this error. A request for one more has dropped it.
    Told(PyErr),
    End,
}

impl Items {
    fn of(value: &Dynamic) -> Self {
        object::unwrap(value).map_or(Self::End, |object| {
            crossing::python(|py| object.bind(py).try_iter().map(Bound::unbind))
                .map_or_else(Self::Failed, Self::Rest)
        })
    }
}

impl Iterator for Items {
    type Item = Result<Dynamic, Box<EvalAltResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        let error = match mem::replace(self, Self::End) {
            Self::End => return None,
            Self::Told(error) => {
                evaluation::end_by_dropped(evaluation::error(error));
                return Some(Ok(Dynamic::UNIT)); // the loop goes on to the check that ends it
            }
            Self::Failed(error) => error,
            Self::Rest(iterator) => {
                let next = crossing::python(|py| {
                    let item = iterator.bind(py).clone().next()?;
                    Some(item.and_then(|item| to_rhai(&item, "item")))
                })?;
                match next {
                    Ok(item) => {
                        *self = Self::Rest(iterator);
                        return Some(Ok(item));
                    }
                    Err(error) => error,
                }
            }
        };
        *self = Self::Told(crossing::python(|py| error.clone_ref(py)));
        Some(Err(evaluation::error(error)))
    }
}
