//! Finds the modules that scripts import, and loads each once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};

use crate::bounds::guard::Fallible;
use crate::crossing;
use crate::crossing::evaluation::{self, Evaluation};
use crate::engine::limits::Limits;
use crate::engine::{compiling, constants, folder, profile, token_limits};

/// The longest chain of modules that import each other while they load: each takes stack.
const MAX_LOADING: usize = 16;

/// Marks a module as loading until it is dropped.
struct Loading;

impl Loading {
    /// Return the reason, if the modules that are loading now cannot import this one.
    fn refusal(path: &str) -> Option<String> {
        let refusal = |evaluation: &Evaluation<'_>| {
            let loading = evaluation.loading.borrow();
            if loading.iter().any(|importer| importer == path) {
                Some(format!("module '{path}' imports itself"))
            } else {
                (loading.len() >= MAX_LOADING)
                    .then(|| format!("more than {MAX_LOADING} modules import each other in a row"))
            }
        };
        Evaluation::with(refusal).flatten()
    }

    fn begin(path: &str) -> Self {
        Evaluation::with(|evaluation| evaluation.loading.borrow_mut().push(path.to_owned()));
        Self
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        Evaluation::with(|evaluation| evaluation.loading.borrow_mut().pop());
    }
}

/// A place where sources of modules are found.
#[derive(Clone)]
pub enum Sources {
    Folder(PathBuf),
    /// A Python callable from a path to a source or `None`.
    Function(Arc<Py<PyAny>>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Sources {
    type Error = PyErr;

    fn extract(sources: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(if sources.is_callable() {
            Self::Function(Arc::new(sources.to_owned().unbind()))
        } else {
            Self::Folder(sources.extract()?)
        })
    }
}

impl Sources {
    fn find(&self, path: &str) -> Fallible<Option<String>> {
        match self {
            Self::Folder(folder) => folder::read(folder, path),
            Self::Function(find) => {
                crossing::python(|py| find.bind(py).call1((path,))?.extract()).map_err(evaluation::error)
            }
        }
    }
}

/// Loads modules, and keeps them.
pub struct Loader {
    sources: Sources,
    limits: Limits,
    loaded: Mutex<HashMap<String, Shared<Module>>>,
}

impl Loader {
    pub fn new(sources: Sources, limits: Limits) -> Self {
        Self {
            sources,
            limits,
            loaded: Mutex::default(),
        }
    }

    fn load(&self, engine: &Engine, path: &str, position: Position) -> Fallible<Shared<Module>> {
        let in_module = |error: Box<EvalAltResult>| -> Box<EvalAltResult> {
            EvalAltResult::ErrorInModule(path.to_owned(), error, position).into()
        };
        let source = self
            .sources
            .find(path)
            .map_err(|mut error| {
                if error.position().is_none() {
                    error.set_position(position);
                }
                error
            })?
            .ok_or_else(|| EvalAltResult::ErrorModuleNotFound(path.to_owned(), position))?;
        let mut compiler = self.limits.compiler();
        token_limits::bound_with_copies(&mut compiler);
        compiler.set_max_string_size(self.limits.longest_string(&source));
        let mut ast = compiling::compile(&mut compiler, &Scope::new(), &compiling::without_marks(&source))
            .map_err(|error| in_module(error.into()))?;
        if constants::may_be_unbounded(&source) {
            ast = constants::look_up(&ast, &[]);
        }
        ast = profile::marked(ast, Some(path));
        ast.set_source(path);
        Module::eval_ast_as_new(Scope::new(), &ast, engine)
            .map(Shared::new)
            .map_err(in_module)
    }
}

impl ModuleResolver for Loader {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Fallible<Shared<Module>> {
        let known = |loader: &Self| {
            let loaded = loader.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.get(path).cloned()
        };
        if let Some(module) = known(self) {
            return Ok(module);
        }
        if let Some(reason) = Loading::refusal(path) {
            return Err(EvalAltResult::ErrorInModule(path.to_owned(), reason.into(), position).into());
        }
        let loading = Loading::begin(path);
        let module = self.load(engine, path, position)?;
        drop(loading);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }
}
