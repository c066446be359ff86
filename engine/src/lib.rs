//! The Rhai engine for Python. This face translates; what to allow is decided in rhai_tasks/engine.py.

mod alloc;
mod guard;
mod natives;
mod values;

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rhai::packages::{Package, StandardPackage};
use rhai::{AST, Dynamic, Engine, EvalAltResult, Position, Scope, Shared};

use guard::{Bounds, Guard, Stop, Stopped};
use natives::BoundedText;

/// Built once: it is most of what a new engine costs.
static STANDARD: LazyLock<Shared<rhai::Module>> = LazyLock::new(|| StandardPackage::new().as_shared_module());

thread_local! {
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
    static PRINT: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
    static DEBUG: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
    /// The latest exception of a host function, with the text that the script saw.
    static RAISED: RefCell<Option<(String, PyErr)>> = const { RefCell::new(None) };
    /// An exception that ends the evaluation whatever the script does: KeyboardInterrupt, SystemExit.
    static FATAL: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

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
struct Ast(AST);

/// One thread's engine.
#[pyclass(frozen, module = "rhai_tasks._engine")]
struct NativeEngine(Engine);

/// What an evaluation ended with, before Python hears of it.
enum Failure {
    Script(Box<EvalAltResult>),
    Stopped(Stopped, Position),
    Panic(String),
}

#[pymethods]
impl NativeEngine {
    /// Args:
    ///     functions: Host functions: name, numbers of arguments it takes, callable.
    ///     max_call_depth: Nested calls of script functions.
    ///     max_expr_depth: Nesting of expressions.
    ///     max_function_expr_depth: The same inside functions.
    #[new]
    #[pyo3(signature = (functions, *, max_call_depth, max_expr_depth, max_function_expr_depth))]
    fn new(
        functions: Vec<(String, Vec<usize>, Py<PyAny>)>,
        max_call_depth: usize,
        max_expr_depth: usize,
        max_function_expr_depth: usize,
    ) -> Self {
        silence_panics();
        let mut engine = Engine::new_raw();
        engine.register_global_module(Shared::clone(&STANDARD));
        natives::register(&mut engine);
        engine.set_max_call_levels(max_call_depth);
        engine.set_max_expr_depths(max_expr_depth, max_function_expr_depth);
        engine.on_progress(|_| guard::operation());
        engine.on_print(|text| tell(&PRINT, |py, callback| callback.call1(py, (text,))));
        engine.on_debug(|text, source, position| {
            tell(&DEBUG, |py, callback| {
                callback.call1(py, (text, source, position.line(), position.position()))
            });
        });
        for (name, arities, function) in functions {
            let function = Arc::new(function);
            for arity in arities {
                register_host(&mut engine, &name, arity, Arc::clone(&function));
            }
        }
        Self(engine)
    }

    /// Compile a script.
    ///
    /// Args:
    ///     source: The script.
    ///     constants: Their values become part of the compiled script: script functions see no scope, and
    ///         would not find them otherwise.
    ///
    /// Raises:
    ///     RhaiSyntaxError: It does not compile.
    ///     RhaiPanic: The parser failed.
    fn compile(&self, py: Python<'_>, source: &str, constants: Option<&Bound<'_, PyDict>>) -> PyResult<Ast> {
        let scope = scope(constants)?;
        py.detach(|| {
            caught(|| {
                self.0
                    .compile_with_scope(&scope, source)
                    .map_err(|error| Failure::Script(error.into()))
            })
        })
        .map(Ast)
        .map_err(|failure| raise(py, failure))
    }

    /// Run a compiled script and return its value in the native text form: Rust's own `to_string()`.
    #[pyo3(signature = (ast, constants, max_operations, max_memory, timeout, cancel, print, debug))]
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        py: Python<'_>,
        ast: &Ast,
        constants: Option<&Bound<'_, PyDict>>,
        max_operations: u64,
        max_memory: usize,
        timeout: Option<f64>,
        cancel: Option<&CancelToken>,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let bounds = bounds(max_operations, max_memory, timeout, cancel)?;
        self.evaluate(py, ast, constants, &bounds, print, debug, |value| {
            let mut text = BoundedText::new(guard::remaining());
            match value.as_immutable_string_ref() {
                Ok(string) => Ok(string.to_string()),
                Err(_) => match write!(text, "{value}") {
                    Ok(()) => Ok(text.text),
                    Err(_) => Err(Failure::Stopped(
                        Stopped::new(Stop::Memory, &bounds),
                        Position::NONE,
                    )),
                },
            }
        })
    }

    /// Run a compiled script and return its value as a Python value.
    #[pyo3(signature = (ast, constants, max_operations, max_memory, timeout, cancel, print, debug))]
    #[allow(clippy::too_many_arguments)]
    fn eval(
        &self,
        py: Python<'_>,
        ast: &Ast,
        constants: Option<&Bound<'_, PyDict>>,
        max_operations: u64,
        max_memory: usize,
        timeout: Option<f64>,
        cancel: Option<&CancelToken>,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let bounds = bounds(max_operations, max_memory, timeout, cancel)?;
        self.evaluate(py, ast, constants, &bounds, print, debug, |value| {
            Ok(Python::attach(|py| values::to_python(py, value)))
        })?
    }
}

impl NativeEngine {
    /// Evaluate without the GIL; `finish` turns the value into what leaves, under the same guard.
    #[allow(clippy::too_many_arguments)]
    fn evaluate<T: Send>(
        &self,
        py: Python<'_>,
        ast: &Ast,
        constants: Option<&Bound<'_, PyDict>>,
        bounds: &Bounds,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
        finish: impl FnOnce(&Dynamic) -> Result<T, Failure> + Send,
    ) -> PyResult<T> {
        let mut scope = scope(constants)?;
        let outer = (PRINT.replace(print), DEBUG.replace(debug), RAISED.take());
        let result = py.detach(|| {
            caught(|| {
                let _guard = Guard::new(bounds);
                let result =
                    guard::proceed().and_then(|()| self.0.eval_ast_with_scope::<Dynamic>(&mut scope, &ast.0));
                if let Some(stop) = guard::stopped() {
                    let position = result
                        .err()
                        .map_or(Position::NONE, |error| error.unwrap_inner().position());
                    return Err(Failure::Stopped(Stopped::new(stop, bounds), position));
                }
                finish(&result.map_err(Failure::Script)?)
            })
        });
        PRINT.replace(outer.0);
        DEBUG.replace(outer.1);
        let result = match FATAL.take() {
            Some(fatal) => Err(fatal),
            None => result.map_err(|failure| raise(py, failure)),
        };
        RAISED.replace(outer.2);
        result
    }
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

fn scope(constants: Option<&Bound<'_, PyDict>>) -> PyResult<Scope<'static>> {
    let mut scope = Scope::new();
    for (name, value) in constants.into_iter().flatten() {
        scope.push_constant_dynamic(name.extract::<String>()?, values::to_rhai(&value)?);
    }
    Ok(scope)
}

/// Make a Python callable a script function of so many arguments.
fn register_host(engine: &mut Engine, name: &str, arity: usize, function: Arc<Py<PyAny>>) {
    let any = vec![TypeId::of::<Dynamic>(); arity];
    engine.register_raw_fn(name, any, move |_, arguments| {
        let called = Python::attach(|py| -> PyResult<Dynamic> {
            let arguments = arguments
                .iter()
                .map(|value| values::to_python(py, value))
                .collect::<PyResult<Vec<_>>>()?;
            let evaluating = EVALUATING.replace(false);
            let value = function.bind(py).call1(PyTuple::new(py, arguments)?);
            EVALUATING.set(evaluating);
            values::to_rhai(&value?)
        });
        called.map_err(host_error)
    });
}

/// Turn a host function's exception into an error that the script can catch, as it can a Rust host's.
fn host_error(error: PyErr) -> Box<EvalAltResult> {
    let message = Python::attach(|py| {
        if !error.is_instance_of::<PyException>(py) {
            FATAL.replace(Some(error.clone_ref(py)));
            guard::cancel();
        }
        let text = error.value(py).to_string();
        let message = if text.is_empty() {
            error.get_type(py).to_string()
        } else {
            text
        };
        RAISED.replace(Some((message.clone(), error)));
        message
    });
    message.into()
}

/// Hand a script's text to Python; what that raises ends the evaluation.
fn tell(
    callback: &'static std::thread::LocalKey<RefCell<Option<Py<PyAny>>>>,
    call: impl FnOnce(Python<'_>, &Py<PyAny>) -> PyResult<Py<PyAny>>,
) {
    if callback.with_borrow(Option::is_none) {
        return;
    }
    Python::attach(|py| {
        let callable =
            callback.with_borrow(|callable| callable.as_ref().map(|callable| callable.clone_ref(py)));
        if let Some(Err(error)) = callable.map(|callable| call(py, &callable)) {
            FATAL.replace(Some(error));
            guard::cancel();
        }
    });
}

/// Run natively; a panic becomes a failure like any other.
fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let outer = EVALUATING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Failure::Panic(message.to_owned()))
    });
    EVALUATING.set(outer);
    result
}

/// Keep panics that `caught` turns into errors off stderr; all others are reported as before.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            if !EVALUATING.get() {
                report(information);
            }
        }));
    });
}

/// Make the Python exception; its class is chosen in rhai_tasks/errors.py.
fn raise(py: Python<'_>, failure: Failure) -> PyErr {
    match build_error(py, failure) {
        Ok(error) | Err(error) => error,
    }
}

fn build_error(py: Python<'_>, failure: Failure) -> PyResult<PyErr> {
    let make = py
        .import(intern!(py, "rhai_tasks.errors"))?
        .getattr(intern!(py, "make_rhai_error"))?;
    let (kind, text, position, frames, debug, thrown, cause) = match failure {
        Failure::Script(error) => {
            let inner = error.unwrap_inner();
            let mut thrown = None;
            let mut cause = None;
            let mut kind = kind(inner);
            if let EvalAltResult::ErrorRuntime(value, _) = inner {
                thrown = Some(values::to_python(py, value).unwrap_or_else(|_| py.None()));
                let raised = RAISED.take().filter(|(message, _)| value.to_string() == *message);
                if let Some((_, exception)) = raised {
                    cause = Some(exception);
                    kind = "Host";
                }
            }
            (
                kind,
                error.to_string(),
                inner.position(),
                frames(&error),
                format!("{error:?}"),
                thrown,
                cause,
            )
        }
        Failure::Stopped(stopped, position) => {
            let text = with_position(&stopped.to_string(), position);
            (
                stop_kind(stopped.stop),
                text.clone(),
                position,
                Vec::new(),
                text,
                None,
                None,
            )
        }
        Failure::Panic(message) => {
            let text = format!("The engine failed: {message}");
            (
                "Panic",
                text.clone(),
                Position::NONE,
                Vec::new(),
                text,
                None,
                None,
            )
        }
    };
    let error = PyErr::from_value(make.call1((
        kind,
        text,
        position.line(),
        position.position(),
        frames,
        debug,
        thrown,
    ))?);
    if cause.is_some() {
        error.set_cause(py, cause);
    }
    Ok(error)
}

fn with_position(text: &str, position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{text} (line {line}, position {column})"),
        (Some(line), None) => format!("{text} (line {line})"),
        _ => text.to_owned(),
    }
}

/// Functions the error passed through, innermost first: name, line, column.
fn frames(error: &EvalAltResult) -> Vec<(String, Option<usize>, Option<usize>)> {
    let mut frames = Vec::new();
    let mut error = error;
    while let EvalAltResult::ErrorInFunctionCall(name, _, inner, position) = error {
        frames.push((name.clone(), position.line(), position.position()));
        error = inner;
    }
    frames.reverse();
    frames
}

fn stop_kind(stop: Stop) -> &'static str {
    match stop {
        Stop::Operations => "TooManyOperations",
        Stop::Memory => "OutOfMemory",
        Stop::Timeout => "Timeout",
        Stop::Cancelled => "Cancelled",
    }
}

/// Name the variant, without its `Error`.
fn kind(error: &EvalAltResult) -> &'static str {
    match error {
        EvalAltResult::ErrorParsing(..) => "Parsing",
        EvalAltResult::ErrorVariableNotFound(..) => "VariableNotFound",
        EvalAltResult::ErrorPropertyNotFound(..) => "PropertyNotFound",
        EvalAltResult::ErrorFunctionNotFound(..) => "FunctionNotFound",
        EvalAltResult::ErrorModuleNotFound(..) => "ModuleNotFound",
        EvalAltResult::ErrorIndexNotFound(..) => "IndexNotFound",
        EvalAltResult::ErrorArrayBounds(..) => "ArrayBounds",
        EvalAltResult::ErrorStringBounds(..) => "StringBounds",
        EvalAltResult::ErrorBitFieldBounds(..) => "BitFieldBounds",
        EvalAltResult::ErrorMismatchDataType(..) => "MismatchDataType",
        EvalAltResult::ErrorMismatchOutputType(..) => "MismatchOutputType",
        EvalAltResult::ErrorIndexingType(..) => "IndexingType",
        EvalAltResult::ErrorFor(..) => "For",
        EvalAltResult::ErrorArithmetic(..) => "Arithmetic",
        EvalAltResult::ErrorAssignmentToConstant(..) => "AssignmentToConstant",
        EvalAltResult::ErrorNonPureMethodCallOnConstant(..) => "NonPureMethodCallOnConstant",
        EvalAltResult::ErrorStackOverflow(..) => "StackOverflow",
        EvalAltResult::ErrorDataTooLarge(..) => "DataTooLarge",
        EvalAltResult::ErrorRuntime(..) => "Runtime",
        _ => "Other",
    }
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CancelToken>()?;
    module.add_class::<Ast>()?;
    module.add_class::<NativeEngine>()
}
