//! The Rhai engine for Python. This face translates; what to allow is decided in rhai_tasks/engine.py.

mod alloc;
mod failure;
mod guard;
mod host;
mod natives;
mod object;
mod scope;
mod values;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rhai::packages::{Package, StandardPackage};
use rhai::{AST, CallFnOptions, Dynamic, Engine, FnAccess, FnPtr, Position, Scope, Shared};

use failure::{Failure, caught, raise};
use guard::{Bounds, Guard, Stop, Stopped};
use host::{DEBUG, FATAL, PRINT, RAISED, tell};
use natives::BoundedText;
use scope::NativeScope;
use values::FunctionPointer;

/// Built once: it is most of what a new engine costs.
static STANDARD: LazyLock<Shared<rhai::Module>> = LazyLock::new(|| StandardPackage::new().as_shared_module());

/// A flag that stops scripts, from any thread.
#[pyclass(frozen, module = "rhai_tasks._engine")]
#[derive(Default)]
struct CancelToken(Arc<AtomicBool>);

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Stop the scripts that run, or will run, with this token.
    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether `cancel` was called.
    #[getter]
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A compiled script; for the engine, and best for the thread, that compiled it.
#[pyclass(frozen, module = "rhai_tasks._engine")]
struct NativeAst(AST);

#[pymethods]
impl NativeAst {
    /// The script's functions: name, parameters, doc comment, whether it is private.
    fn functions(&self) -> Vec<(String, Vec<String>, String, bool)> {
        let mut functions: Vec<_> = self
            .0
            .iter_functions()
            .filter(|function| !function.name.starts_with("anon$"))
            .map(|function| {
                (
                    function.name.to_owned(),
                    function
                        .params
                        .iter()
                        .map(|&name| name.to_owned())
                        .collect::<Vec<_>>(),
                    documentation(&function.comments),
                    function.access == FnAccess::Private,
                )
            })
            .collect();
        functions.sort_by(|one, other| (&one.0, one.1.len()).cmp(&(&other.0, other.1.len())));
        functions
    }
}

/// Leave the marks of comments out.
fn documentation(comments: &[&str]) -> String {
    let lines = comments.iter().flat_map(|comment| comment.lines());
    let marks: &[char] = &['/', '*', ' '];
    let lines = lines.map(|line| line.trim_start_matches(marks).trim_end_matches(marks));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// One thread's engine.
#[pyclass(frozen, module = "rhai_tasks._engine")]
struct NativeEngine(Engine);

/// What to run of a script: itself, or one of its functions.
enum Entry {
    Script,
    Function(String, Vec<Dynamic>),
    Pointer(FnPtr, Vec<Dynamic>),
}

/// What an evaluation gives: a value, its text, operations, bytes.
type Details = (Py<PyAny>, String, u64, usize);

#[pymethods]
impl NativeEngine {
    /// Args:
    ///     functions: Host functions: name, types of the parameters, callable.
    ///     types: Classes: slot, name for scripts, whether their objects can be iterated.
    ///     modules: Modules: name, functions (name, number of parameters, callable), constants.
    ///     loader: Finds the source of a module by its path, or `None`.
    ///     limits: Bounds of Rhai's own, by the name of its setter without `set_`.
    #[new]
    #[allow(clippy::type_complexity)]
    fn new(
        functions: Vec<host::Function>,
        types: Vec<(usize, String, bool)>,
        modules: Vec<(String, Vec<(String, usize, Py<PyAny>)>, Bound<'_, PyDict>)>,
        loader: Option<Py<PyAny>>,
        limits: Vec<(String, usize)>,
    ) -> PyResult<Self> {
        failure::silence_panics();
        let mut engine = Engine::new_raw();
        engine.register_global_module(Shared::clone(&STANDARD));
        natives::register(&mut engine);
        set_limits(&mut engine, limits)?;
        engine.on_progress(|_| guard::operation());
        engine.on_print(|text| tell(&PRINT, |py, callback| callback.call1(py, (text,))));
        engine.on_debug(|text, source, position| {
            tell(&DEBUG, |py, callback| {
                callback.call1(py, (text, source, position.line(), position.position()))
            });
        });
        for (slot, name, iterable) in types {
            object::register(&mut engine, slot, &name, iterable);
        }
        for function in functions {
            host::register(&mut engine, function)?;
        }
        for (name, functions, constants) in modules {
            let module = host::module(functions, &constants)?;
            engine.register_static_module(name, module.into());
        }
        if let Some(find) = loader {
            engine.set_module_resolver(host::Loader::new(find));
        }
        Ok(Self(engine))
    }

    /// Compile a script.
    ///
    /// Args:
    ///     source: The script.
    ///     name: For texts of errors; `None` for none.
    ///     constants: Their values become part of the compiled script: script functions see no scope, and
    ///         would not find them otherwise.
    ///
    /// Raises:
    ///     RhaiSyntaxError: It does not compile.
    ///     RhaiPanic: The parser failed.
    fn compile(
        &self,
        py: Python<'_>,
        source: &str,
        name: Option<&str>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<NativeAst> {
        let mut scope = Scope::new();
        push(&mut scope, constants, true)?;
        py.detach(|| {
            caught(|| {
                self.0
                    .compile_with_scope(&scope, source)
                    .map_err(|error| Failure::Script(error.into()))
            })
        })
        .map(|mut ast| {
            if let Some(name) = name {
                ast.set_source(name);
            }
            NativeAst(ast)
        })
        .map_err(|failure| raise(py, &failure))
    }

    /// Run a compiled script and return its value in the native text form: Rust's own `to_string()`.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        py: Python<'_>,
        ast: &NativeAst,
        entry: Option<(Bound<'_, PyAny>, Bound<'_, PyTuple>)>,
        scope: Option<&NativeScope>,
        variables: Option<&Bound<'_, PyDict>>,
        constants: Option<&Bound<'_, PyDict>>,
        max_operations: u64,
        max_memory: usize,
        timeout: Option<f64>,
        cancel: Option<&CancelToken>,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let bounds = bounds(max_operations, max_memory, timeout, cancel)?;
        let names = (scope, variables, constants);
        self.evaluate(py, ast, entry, names, &bounds, print, debug, |value, _| {
            text(value, &bounds)
        })
    }

    /// Run a compiled script and return its value as a Python value.
    #[allow(clippy::too_many_arguments)]
    fn eval(
        &self,
        py: Python<'_>,
        ast: &NativeAst,
        entry: Option<(Bound<'_, PyAny>, Bound<'_, PyTuple>)>,
        scope: Option<&NativeScope>,
        variables: Option<&Bound<'_, PyDict>>,
        constants: Option<&Bound<'_, PyDict>>,
        max_operations: u64,
        max_memory: usize,
        timeout: Option<f64>,
        cancel: Option<&CancelToken>,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let bounds = bounds(max_operations, max_memory, timeout, cancel)?;
        let names = (scope, variables, constants);
        self.evaluate(py, ast, entry, names, &bounds, print, debug, |value, _| {
            Ok(Python::attach(|py| values::to_python(py, value)))
        })?
    }

    /// Run a compiled script and return value, text, operations, and the most bytes it had allocated.
    #[allow(clippy::too_many_arguments)]
    fn measure(
        &self,
        py: Python<'_>,
        ast: &NativeAst,
        entry: Option<(Bound<'_, PyAny>, Bound<'_, PyTuple>)>,
        scope: Option<&NativeScope>,
        variables: Option<&Bound<'_, PyDict>>,
        constants: Option<&Bound<'_, PyDict>>,
        max_operations: u64,
        max_memory: usize,
        timeout: Option<f64>,
        cancel: Option<&CancelToken>,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
    ) -> PyResult<Details> {
        let bounds = bounds(max_operations, max_memory, timeout, cancel)?;
        let names = (scope, variables, constants);
        self.evaluate(py, ast, entry, names, &bounds, print, debug, |value, guard| {
            let (operations, peak) = (guard.operations(), guard.peak());
            let text = text(value, &bounds)?;
            let value = Python::attach(|py| values::to_python(py, value));
            Ok(value.map(|value| (value, text, operations, peak)))
        })?
    }
}

impl NativeEngine {
    /// Evaluate without the GIL; `finish` turns the value into what leaves, under the same guard.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn evaluate<T: Send>(
        &self,
        py: Python<'_>,
        ast: &NativeAst,
        entry: Option<(Bound<'_, PyAny>, Bound<'_, PyTuple>)>,
        (lasting, variables, constants): (
            Option<&NativeScope>,
            Option<&Bound<'_, PyDict>>,
            Option<&Bound<'_, PyDict>>,
        ),
        bounds: &Bounds,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
        finish: impl FnOnce(&Dynamic, &Guard) -> Result<T, Failure> + Send,
    ) -> PyResult<T> {
        let entry = entry.map_or(Ok(Entry::Script), |(target, arguments)| {
            entry_of(&target, &arguments)
        })?;
        let mut scope = Scope::new();
        push(&mut scope, constants, true)?;
        push(&mut scope, variables, false)?;
        let given = scope.len();
        if let Some(lasting) = lasting {
            let lasting = lasting.take()?;
            if given == 0 {
                scope = lasting;
            } else {
                extend(&mut scope, lasting, 0);
            }
        }
        let outer = (PRINT.replace(print), DEBUG.replace(debug), RAISED.take());
        let result = py.detach(|| {
            host::apart(|| {
                caught(|| {
                    let guard = Guard::new(bounds);
                    let result = guard::proceed().and_then(|()| match entry {
                        Entry::Script => self.0.eval_ast_with_scope::<Dynamic>(&mut scope, &ast.0),
                        Entry::Function(name, arguments) => {
                            let options = CallFnOptions::default();
                            self.0
                                .call_fn_with_options(options, &mut scope, &ast.0, name, arguments)
                        }
                        Entry::Pointer(pointer, arguments) => pointer.call(&self.0, &ast.0, arguments),
                    });
                    if let Some(stop) = guard::stopped() {
                        let position = result
                            .err()
                            .map_or(Position::NONE, |error| error.unwrap_inner().position());
                        return Err(Failure::Stopped(Stopped::new(stop, bounds), position));
                    }
                    finish(&result.map_err(Failure::Script)?, &guard)
                })
            })
        });
        if let Some(lasting) = lasting {
            if given > 0 {
                let mut rest = Scope::new();
                extend(&mut rest, scope, given);
                scope = rest;
            }
            lasting.put(scope);
        }
        PRINT.replace(outer.0);
        DEBUG.replace(outer.1);
        let result = match FATAL.take() {
            Some(fatal) => Err(fatal),
            None => result.map_err(|failure| raise(py, &failure)),
        };
        RAISED.replace(outer.2);
        result
    }
}

/// Write a value's text, within what memory is left: it may be far longer than the value is large.
fn text(value: &Dynamic, bounds: &Bounds) -> Result<String, Failure> {
    if let Ok(string) = value.as_immutable_string_ref() {
        return Ok(string.to_string());
    }
    if let Some(text) = values::object_text(value) {
        return text.map_err(|error| Failure::Script(host::error(error)));
    }
    let mut text = BoundedText::new(guard::remaining());
    match write!(text, "{value}") {
        Ok(()) => Ok(text.text),
        Err(_) => Err(Failure::Stopped(
            Stopped::new(Stop::Memory, bounds),
            Position::NONE,
        )),
    }
}

fn entry_of(target: &Bound<'_, PyAny>, arguments: &Bound<'_, PyTuple>) -> PyResult<Entry> {
    let arguments = arguments
        .iter()
        .map(|value| values::to_rhai(&value))
        .collect::<PyResult<Vec<_>>>()?;
    Ok(match target.cast::<FunctionPointer>() {
        Ok(pointer) => Entry::Pointer(pointer.get().0.clone(), arguments),
        Err(_) => Entry::Function(target.extract()?, arguments),
    })
}

fn set_limits(engine: &mut Engine, limits: Vec<(String, usize)>) -> PyResult<()> {
    let mut depths = (None, None);
    for (name, bound) in limits {
        match name.as_str() {
            "max_call_levels" => engine.set_max_call_levels(bound),
            "max_variables" => engine.set_max_variables(bound),
            "max_functions" => engine.set_max_functions(bound),
            "max_modules" => engine.set_max_modules(bound),
            "max_string_size" => engine.set_max_string_size(bound),
            "max_array_size" => engine.set_max_array_size(bound),
            "max_map_size" => engine.set_max_map_size(bound),
            "max_expr_depth" => {
                depths.0 = Some(bound);
                continue;
            }
            "max_function_expr_depth" => {
                depths.1 = Some(bound);
                continue;
            }
            _ => return Err(PyValueError::new_err(format!("no such limit: {name}"))),
        };
    }
    if let (Some(everywhere), Some(in_functions)) = depths {
        engine.set_max_expr_depths(everywhere, in_functions);
    }
    Ok(())
}

fn bounds(
    max_operations: u64,
    max_memory: usize,
    timeout: Option<f64>,
    cancel: Option<&CancelToken>,
) -> PyResult<Bounds> {
    let timeout = timeout
        .map(Duration::try_from_secs_f64)
        .transpose()
        .map_err(|_| PyValueError::new_err("timeout must be a positive number of seconds"))?;
    Ok(Bounds {
        max_operations,
        max_memory,
        timeout,
        cancel: cancel.map(|token| Arc::clone(&token.0)),
    })
}

fn push(scope: &mut Scope<'static>, entries: Option<&Bound<'_, PyDict>>, constant: bool) -> PyResult<()> {
    for (name, value) in entries.into_iter().flatten() {
        let (name, value) = (name.extract::<String>()?, values::to_rhai(&value)?);
        if constant {
            scope.push_constant_dynamic(name, value);
        } else {
            scope.push_dynamic(name, value);
        }
    }
    Ok(())
}

/// Move entries to the end of a scope, but the first few.
fn extend(scope: &mut Scope<'static>, entries: Scope<'static>, but: usize) {
    scope.extend(entries.into_iter().skip(but).map(|(name, value, _)| {
        let constant = value.is_read_only();
        (name, constant, value)
    }));
}

/// Whether the script that this thread runs has been stopped: a host function that waits should return.
#[pyfunction]
fn stopped() -> bool {
    guard::stopped().is_some()
}

/// Describe the functions of the standard library: Rhai's metadata, as JSON.
///
/// Raises:
///     ValueError: Rhai could not write it.
#[pyfunction]
fn standard_library() -> PyResult<String> {
    let mut engine = Engine::new_raw();
    engine.register_global_module(Shared::clone(&STANDARD));
    engine
        .gen_fn_metadata_to_json(true)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RHAI_VERSION", "1.27.0")?;
    module.add_class::<CancelToken>()?;
    module.add_class::<NativeAst>()?;
    module.add_class::<NativeEngine>()?;
    module.add_class::<NativeScope>()?;
    module.add_class::<FunctionPointer>()?;
    module.add_class::<values::Timestamp>()?;
    module.add_function(wrap_pyfunction!(object::class_slot, module)?)?;
    module.add_function(wrap_pyfunction!(object::slot_type_name, module)?)?;
    module.add_function(wrap_pyfunction!(stopped, module)?)?;
    module.add_function(wrap_pyfunction!(standard_library, module)?)
}
