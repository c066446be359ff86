//! Compiles the scripts of a thread, and keeps them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use rhai::{AST, Dynamic, Engine, OptimizationLevel, Position, Scope};

use crate::bounds::counter::OperationCounter;
use crate::bounds::guard;
use crate::bounds::limits::Bounds;
use crate::crossing;
use crate::crossing::stack::DropOnBigStack;
use crate::engine::limits::Limits;
use crate::engine::lookup::Kind;
use crate::engine::mentions::{self, Mention};
use crate::engine::run::ended_by;
use crate::engine::scripts::{self, Scripts};
use crate::engine::{compiling, constants, profile, token_limits};
use crate::host::failure::Failure;
use crate::values::functions::Functions;
use crate::values::refused::refusal;
use crate::values::scope::NativeScope;

/// A compiled script.
pub type Script = DropOnBigStack<Arc<AST>>;

/// The compiler of a thread, and the scripts that it has compiled.
pub struct Compiler {
    /// Missing while it compiles: a signal handler may compile meanwhile.
    engine: Cell<Option<Engine>>,
    scripts: RefCell<Scripts>,
}

impl Compiler {
    pub fn new() -> Self {
        Self {
            engine: Cell::new(None),
            scripts: RefCell::new(Scripts::new()),
        }
    }
}

/// What one compilation uses.
pub struct Compilation<'a> {
    pub compiler: &'a Compiler,
    pub counter: &'a OperationCounter,
    pub limits: &'a Limits,
    pub bounds: &'a Bounds,
    pub constants: &'a [(String, Dynamic)],
    /// The names of variables, for an engine whose scripts may name no others.
    pub variables: &'a [String],
}

impl Compilation<'_> {
    /// Compile a source, or an `AST`: its source, behind the functions of its library.
    pub fn script(&self, script: &Bound<'_, PyAny>) -> PyResult<Script> {
        let py = script.py();
        if let Ok(source) = script.cast::<PyString>() {
            return self.source(py, source.to_str()?, None);
        }
        let part = |script: &Bound<'_, PyAny>| {
            let source = script.getattr(intern!(py, "source"));
            let source = source.and_then(|source| Ok(source.cast_into::<PyString>()?));
            let source = source.map_err(|_| refusal("script", script))?;
            let name: Option<String> = script.getattr(intern!(py, "name"))?.extract()?;
            self.source(py, source.to_str()?, name.as_deref())
        };
        let ast = part(script)?;
        let library = script.getattr(intern!(py, "library"))?.cast_into::<PyTuple>()?;
        if library.is_empty() {
            return Ok(ast);
        }
        let library = library
            .iter()
            .map(|script| part(&script))
            .collect::<PyResult<Vec<_>>>()?;
        // On the engine's stack, because cloning statements is recursive.
        let merged = crossing::rhai(py, self.limits.stack_size(), || {
            let mut functions = AST::empty();
            for script in &library {
                functions.combine(script.clone_functions_only());
            }
            Ok::<_, Failure>(DropOnBigStack::new(Arc::new(functions.merge(&ast))))
        });
        merged.map_err(|failure| ended_by(py, failure))
    }

    /// Find a script that this thread has compiled, or compile it within bounds. One serves all values of the constants that it
    /// names.
    pub fn source(&self, py: Python<'_>, source: &str, name: Option<&str>) -> PyResult<Script> {
        let Compiler { engine, scripts } = self.compiler;
        let constants = scripts::named(source, self.constants);
        let key = scripts::key(source, name, &constants, self.variables);
        let known = scripts.borrow_mut().find(&key);
        if let Some(ast) = known {
            return Ok(DropOnBigStack::new(ast));
        }
        let mut compiler = engine.take().unwrap_or_else(|| self.limits.compiler());
        compiler.set_max_string_size(self.limits.longest_string(source));
        let compiled = crossing::rhai(py, self.limits.stack_size(), || {
            token_limits::bound_with_copies(&mut compiler);
            guard::compile(self.counter, self.bounds, || {
                Failure::unless_stopped(|| {
                    let scope = scope_of(&constants, self.variables);
                    let compiled = if self.limits.language.expressions {
                        compiler.compile_expression_with_scope(&scope, source)
                    } else {
                        compiling::compile(&mut compiler, &scope, source)
                    };
                    let compiled = compiled.map(|ast| match &*constants {
                        [] if !constants::may_be_unbounded(source) => ast,
                        constants => constants::look_up(&ast, constants),
                    });
                    match guard::stopped() {
                        None => compiled
                            .map(|ast| (profile::marked(ast, name), guard::held()))
                            .map_err(|error| Failure::script(error.into())),
                        Some(stop) => Err(Failure::stopped(stop, Position::NONE)),
                    }
                })
            })
        });
        engine.set(Some(compiler));
        let (mut ast, bytes) = compiled.map_err(|failure| ended_by(py, failure))?;
        if let Some(name) = name {
            ast.set_source(name);
        }
        let ast = Arc::new(ast);
        scripts
            .borrow_mut()
            .keep(key.into_owned(), Arc::clone(&ast), bytes);
        Ok(DropOnBigStack::new(ast))
    }
    /// Compile a source without the optimizer, and return its mentions, as `mentions::of` does.
    pub fn mentions(&self, py: Python<'_>, source: &str) -> PyResult<Vec<Mention>> {
        let mut compiler = self.limits.compiler();
        compiler.set_strict_variables(false); // all unknown names are wanted, not the first
        compiler.set_optimization_level(OptimizationLevel::None);
        compiler.set_max_string_size(self.limits.longest_string(source));
        let found = crossing::rhai(py, self.limits.stack_size(), || {
            token_limits::bound_with_copies(&mut compiler);
            guard::compile(self.counter, self.bounds, || {
                Failure::unless_stopped(|| {
                    let compiled = if self.limits.language.expressions {
                        compiler.compile_expression(source)
                    } else {
                        compiler.compile(source)
                    };
                    match guard::stopped() {
                        None => compiled
                            .map(|ast| mentions::of(&ast))
                            .map_err(|error| Failure::script(error.into())),
                        Some(stop) => Err(Failure::stopped(stop, Position::NONE)),
                    }
                })
            })
        });
        found.map_err(|failure| ended_by(py, failure))
    }
}

/// Return a script with the functions that its scope keeps, and keep its own there.
pub fn with_kept(
    py: Python<'_>,
    stack_size: usize,
    scope: Option<&NativeScope>,
    script: Script,
) -> PyResult<Script> {
    let Some(scope) = scope else {
        return Ok(script);
    };
    let kept = scope.functions();
    if let Some(whole) = kept.as_ref().and_then(|kept| kept.merged_with(&script)) {
        return Ok(whole);
    }
    if kept.is_none() && !script.has_functions() {
        return Ok(script);
    }
    // On the engine's stack, because cloning statements is recursive.
    let merged = crossing::rhai(py, stack_size, || {
        Ok::<_, Failure>(Functions::merge(kept.as_ref(), &script))
    });
    let functions = merged.map_err(|failure| ended_by(py, failure))?;
    let whole = functions.whole();
    scope.keep_functions(functions);
    Ok(whole)
}

/// Return a scope with the names of variables and constants. All are variables there: the optimizer puts no values into the
/// script.
fn scope_of(constants: &[(&str, Kind)], variables: &[String]) -> Scope<'static> {
    let mut scope = Scope::new();
    let constants = constants.iter().map(|&(name, _)| name);
    for name in variables.iter().map(String::as_str).chain(constants) {
        scope.push(name, ());
    }
    scope
}

/// Remove the marks of comments.
pub fn documentation(comments: &[&str]) -> String {
    let marks: &[char] = &['/', '*', ' '];
    let lines = comments.iter().flat_map(|comment| comment.lines());
    let lines = lines.map(|line| line.trim_start_matches(marks).trim_end_matches(marks));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
