//! How scripts iterate over Python objects.

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

/// The rest of an object's iteration. An error is its last item.
struct Items(Option<Result<Py<PyIterator>, Box<EvalAltResult>>>);

impl Items {
    fn of(value: &Dynamic) -> Self {
        Self(object::unwrap(value).map(|object| {
            crossing::python(|py| object.bind(py).try_iter().map(Bound::unbind)).map_err(evaluation::error)
        }))
    }
}

impl Iterator for Items {
    type Item = Result<Dynamic, Box<EvalAltResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.take()? {
            Err(error) => Some(Err(error)),
            Ok(iterator) => {
                let next = crossing::python(|py| {
                    let item = iterator.bind(py).clone().next()?;
                    Some(item.and_then(|item| to_rhai(&item, "item")))
                })?
                .map_err(evaluation::error);
                if next.is_ok() {
                    self.0 = Some(Ok(iterator));
                }
                Some(next)
            }
        }
    }
}
