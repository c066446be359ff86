//! The parts of an engine: the standard library, host functions, classes, modules, limits.

use std::sync::{Arc, LazyLock};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use rhai::packages::{Package, StandardPackage};
use rhai::{Dynamic, Engine, Shared};

use crate::bounds::counter::OperationCounter;
use crate::crossing::evaluation;
use crate::crossing::stack::DropOnBigStack;
use crate::engine::limits::Limits;
use crate::engine::modules::{Loader, Sources};
use crate::engine::{safe_library, token_limits};
use crate::host::functions::{self, Function};
use crate::values::gc::Objects;
use crate::values::{iteration, object};

/// Rhai's library with the safe functions in place of its own, built once: that takes longer than all else in making an
/// engine. It is one module, because each call of a closure looks its functions up in every module again.
static LIBRARY: LazyLock<Shared<rhai::Module>> = LazyLock::new(|| {
    let mut library = rhai::Module::clone(&StandardPackage::new().as_shared_module());
    safe_library::add_to(&mut library);
    library.build_index();
    library.into()
});

/// A module of host functions and constants.
type Module = (String, Vec<Function>, DropOnBigStack<Vec<(String, Dynamic)>>);

/// The parts of the engines of all threads. All engines share one reference to each Python object, so that Python's garbage
/// collector can account for it.
pub struct Recipe {
    pub functions: Vec<Function>,
    pub types: Vec<(usize, String, bool)>,
    pub modules: Vec<Module>,
    pub sources: Option<Sources>,
    pub limits: Limits,
}

impl Recipe {
    /// Make an engine whose operations the counter counts.
    pub fn engine(&self, counter: &Arc<OperationCounter>) -> Engine {
        let mut engine = Engine::new_raw();
        engine.register_global_module(Shared::clone(&LIBRARY));
        self.limits.set(&mut engine);
        token_limits::bound(&mut engine);
        let counter = Arc::clone(counter);
        engine.on_progress(move |_| counter.operation());
        engine.on_print(evaluation::print);
        engine.on_debug(evaluation::debug);
        for (slot, name, _) in &self.types {
            object::register(&mut engine, *slot, name);
        }
        let iterable = self.types.iter().filter(|(_, _, iterable)| *iterable);
        if let Some(module) = iteration::module(iterable.map(|&(slot, ..)| slot)) {
            engine.register_global_module(module);
        }
        for function in &self.functions {
            function.register(&mut engine);
        }
        for (name, functions, constants) in &self.modules {
            engine.register_static_module(name, functions::module(functions, constants).into());
        }
        if let Some(sources) = &self.sources {
            engine.set_module_resolver(Loader::new(sources.clone(), self.limits.clone()));
        }
        engine
    }

    /// Show Python's garbage collector the objects in it.
    ///
    /// `made`: how many engines were made of it.
    pub fn traverse(&self, made: usize, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for function in &self.functions {
            visit.call(&*function.callable)?;
        }
        for (name, functions, values) in &self.modules {
            for function in functions {
                visit.call(&*function.callable)?;
            }
            let mut constants = Objects::default();
            values.iter().for_each(|(_, value)| constants.add(value));
            // Rhai's module has each value once, and so have its index and that of each module around it.
            let of_engine = 2 + name.matches("::").count();
            constants.visit(1 + made * of_engine, visit)?;
        }
        match &self.sources {
            Some(Sources::Function(find)) => visit.call(&**find),
            _ => Ok(()),
        }
    }
}

/// Return the functions of the standard library: names, signatures, and the lines of their comments.
#[pyfunction]
pub fn standard_library() -> Vec<(String, String, Vec<String>)> {
    let mut engine = Engine::new_raw();
    engine.register_global_module(StandardPackage::new().as_shared_module());
    engine.collect_fn_metadata(
        None,
        |function| {
            let function = function.metadata;
            let comments = function.comments.iter().map(ToString::to_string);
            Some((
                function.name.to_string(),
                function.gen_signature(Into::into),
                comments.collect(),
            ))
        },
        true,
    )
}
