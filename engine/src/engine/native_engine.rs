//! Engines for Python: what they are made of, and how they evaluate.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString, PyTuple};
use rhai::packages::{Package, StandardPackage};
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FnPtr, Position, Scope, Shared};
use thread_local::ThreadLocal;

use crate::border;
use crate::cancel::CancelToken;
use crate::failure::{Failure, bounded, raise};
use crate::garbage::Objects;
use crate::guard::{self, Bounds, Guard, Pulse};
use crate::host::{self, Evaluation, FATAL, Function, Loader};
use crate::natives;
use crate::object;
use crate::scope::NativeScope;
use crate::scripts::{self, Scripts};
use crate::source;
use crate::stack::{self, Deep, Linked};
use crate::values::{self, FunctionPointer};

/// Built once: it is most of what a new engine costs.
static STANDARD: LazyLock<Shared<rhai::Module>> = LazyLock::new(|| StandardPackage::new().as_shared_module());

/// Bytes that an evaluation may have taken before its stack, and before also the allocator, give back what is free.
const LARGE: usize = 1024 * 1024;
const HUGE: usize = 16 * 1024 * 1024;
/// Bytes of the longest string that constants are folded to, or of the source if that is longer.
const FOLDED_STRING: usize = 1024 * 1024;

thread_local! {
    /// Operations and peak bytes of the evaluation that ended last in this thread.
    static LAST_USE: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// Operations, and the most bytes allocated at once, of the evaluation that ended last in this thread, however it ended.
#[pyfunction]
pub fn last_use() -> (u64, usize) {
    LAST_USE.get()
}

/// `rhai_tasks.Limits`, attribute by attribute.
#[derive(Clone, FromPyObject)]
pub struct Limits {
    timeout: Option<f64>,
    max_operations: u64,
    max_memory: usize,
    max_call_levels: usize,
    max_expr_depth: usize,
    max_function_expr_depth: usize,
    max_variables: usize,
    max_functions: usize,
    max_modules: usize,
    max_string_size: usize,
    max_array_size: usize,
    max_map_size: usize,
}

/// A module of host functions (name, number of parameters, callable) and constants.
type Module = (
    String,
    Vec<(String, usize, Arc<Py<PyAny>>)>,
    Deep<Vec<(String, Dynamic)>>,
);

/// A script's function: name, parameters, doc comment.
type Signature = (String, Vec<String>, String);

/// What the engines of all threads are made of. Python objects are counted here once and shared by all engines, so
/// that Python's garbage collector can see through.
struct Recipe {
    functions: Vec<Function>,
    types: Vec<(usize, String, bool)>,
    modules: Vec<Module>,
    loader: Option<Arc<Py<PyAny>>>,
    limits: Limits,
}

/// Evaluates scripts, on any thread: each has an engine and compiled scripts of its own inside, because shared ones
/// lose half their speed to reference counts.
#[pyclass(frozen, module = "rhai_tasks._engine")]
pub struct NativeEngine {
    recipe: Recipe,
    threads: ThreadLocal<Deep<OfThread>>,
    /// How many of them there are; all are made while Python's lock is held.
    made: AtomicUsize,
    print: Py<PyAny>,
    debug: Py<PyAny>,
    stack_size: usize,
}

struct OfThread {
    engine: Engine,
    /// Not there while it compiles, when a signal's handler may want one as well.
    compiler: Cell<Option<Engine>>,
    pulse: Arc<Pulse>,
    scripts: RefCell<Scripts>,
}

/// What to run of a script: itself, or one of its functions.
enum Entry {
    Script,
    Function(String, Vec<Dynamic>),
    Pointer(FnPtr, Vec<Dynamic>),
}

impl Linked for Entry {
    fn is_flat(&self) -> bool {
        match self {
            Self::Script => true,
            Self::Function(_, arguments) => arguments.is_flat(),
            Self::Pointer(pointer, arguments) => pointer.is_flat() && arguments.is_flat(),
        }
    }
}

/// What the caller wants of an evaluation.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The value in its native text form, which is Rust's own `to_string()`.
    Text,
    Value,
    /// Both, operations, and the most bytes that were allocated.
    Details,
}

/// What an evaluation gave.
struct Evaluated {
    value: Dynamic,
    text: String,
    // Without what it took to write the text.
    operations: u64,
    peak: usize,
}

#[pymethods]
impl NativeEngine {
    /// Args:
    ///     functions: Host functions: name, types of the parameters, callable.
    ///     types: Classes: slot, name for scripts, whether their objects can be iterated.
    ///     modules: Modules: name, functions (name, number of parameters, callable), constants.
    ///     loader: Finds the source of a module by its path, or `None`.
    ///     limits: The `Limits` of every evaluation.
    ///     print: Takes what scripts print, if an evaluation does not say otherwise.
    ///     debug: Likewise: text, source, line, column.
    #[new]
    #[allow(clippy::type_complexity)]
    fn new(
        functions: Vec<(String, Vec<String>, Py<PyAny>)>,
        types: Vec<(usize, String, bool)>,
        modules: Vec<(String, Vec<(String, usize, Py<PyAny>)>, Bound<'_, PyDict>)>,
        loader: Option<Py<PyAny>>,
        limits: Limits,
        print: Py<PyAny>,
        debug: Py<PyAny>,
    ) -> PyResult<Self> {
        border::silence_panics();
        let functions = functions
            .into_iter()
            .map(|(name, parameters, function)| Function::new(name, &parameters, function))
            .collect::<PyResult<_>>()?;
        let modules = modules
            .into_iter()
            .map(|(name, functions, constants)| {
                let functions = functions
                    .into_iter()
                    .map(|(name, arity, function)| (name, arity, Arc::new(function)))
                    .collect();
                Ok((name, functions, entries(constants.as_any())?))
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            stack_size: limits.stack_size(),
            recipe: Recipe {
                functions,
                types,
                modules,
                loader: loader.map(Arc::new),
                limits,
            },
            threads: ThreadLocal::new(),
            made: AtomicUsize::new(0),
            print,
            debug,
        })
    }

    /// Compile a script, and return its functions: name, parameters, doc comment.
    ///
    /// Raises:
    ///     RhaiSyntaxError: It does not compile.
    ///     RhaiTimeout, RhaiMemoryLimit: It would take too much.
    ///     RhaiPanic: The parser failed.
    fn compile(&self, py: Python<'_>, source: &str, name: Option<&str>) -> PyResult<Vec<Signature>> {
        let bounds = self.bounds(None, None)?;
        let ast = self.compiled(py, self.of_thread()?, source, name, &[], &bounds)?;
        let mut functions: Vec<_> = ast
            .iter_functions()
            .filter(|function| !function.name.starts_with("anon$"))
            .map(|function| {
                let parameters: Vec<_> = function.params.iter().map(|&name| name.to_owned()).collect();
                let doc = documentation(&function.comments);
                (function.name.to_owned(), parameters, doc)
            })
            .collect();
        functions.sort_by(|one, other| (&one.0, one.1.len()).cmp(&(&other.0, other.1.len())));
        Ok(functions)
    }

    /// Evaluate a script.
    ///
    /// Args:
    ///     form: "text", "value" or "details": what to return.
    ///     script: Its source, or an object with `source` and `name`.
    ///     entry: A function to call, its name or a pointer, and its arguments; `None`: the script itself.
    ///     scope: A `NativeScope`, which keeps what the script does to it, or a mapping.
    ///     constants: A mapping.
    ///     timeout: Seconds; `None` means that of the limits.
    ///     cancel: Stops it from elsewhere.
    ///     print: Takes what it prints; `None` means the engine's.
    ///     debug: Likewise.
    ///
    /// Returns:
    ///     The text, the value, or a tuple of value, text, operations, and the most bytes it had allocated.
    #[allow(clippy::too_many_arguments)]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        form: &str,
        script: &Bound<'py, PyAny>,
        entry: Option<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>,
        scope: Option<&Bound<'py, PyAny>>,
        constants: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        cancel: Option<&CancelToken>,
        print: Option<Py<PyAny>>,
        debug: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        LAST_USE.set((0, 0)); // what does not compile has used nothing
        let form = match form {
            "text" => Form::Text,
            "value" => Form::Value,
            _ => Form::Details,
        };
        let mut entry = match entry {
            None => Deep::new(Entry::Script),
            Some((target, arguments)) => entry_of(&target, &arguments)?,
        };
        let bounds = self.bounds(timeout, cancel)?;
        let mut everywhere = constants.map_or(Ok(Deep::new(Vec::new())), entries)?;
        let mut variables = Deep::new(Scope::new());
        for (name, value) in &*everywhere {
            variables.push_constant_dynamic(name.as_str(), stack::copy(value));
        }
        let mut lasting = None;
        if let Some(scope) = scope {
            if let Ok(scope) = scope.cast::<NativeScope>() {
                everywhere.splice(0..0, scope.get().constants()?);
                lasting = Some(scope.get());
            } else {
                for (name, value) in entries(scope)?.take() {
                    variables.push_dynamic(name, value);
                }
            }
        }
        let of_thread = self.of_thread()?;
        let ast = match script.cast::<PyString>() {
            Ok(source) => self.compiled(py, of_thread, source.to_str()?, None, &everywhere, &bounds)?,
            Err(_) => {
                let source = script.getattr(intern!(py, "source"))?.cast_into::<PyString>()?;
                let name: Option<String> = script.getattr(intern!(py, "name"))?.extract()?;
                let name = name.as_deref();
                self.compiled(py, of_thread, source.to_str()?, name, &everywhere, &bounds)?
            }
        };
        let OfThread { engine, pulse, .. } = of_thread;
        let given = variables.len();
        if let Some(lasting) = lasting {
            move_to(&mut variables, lasting.take()?);
        }
        let print = print.as_ref().unwrap_or(&self.print);
        let debug = debug.as_ref().unwrap_or(&self.debug);
        let evaluation = Evaluation::new(print, debug);
        let _outer = evaluation.begin();
        let keep = lasting.is_some();
        let mut used = (0, 0);
        let ended = border::rhai(py, self.stack_size, || {
            let _guard = Guard::new(pulse, &bounds);
            let ended = run(engine, &ast, &mut entry, &mut variables, form);
            used = guard::used();
            if !keep {
                variables.clear(); // here, where the lock is not held
            }
            ended
        });
        if let Some(lasting) = lasting {
            let (mut of_call, mut rest) = (Deep::new(Scope::new()), Scope::new());
            let mut entries = variables.take().into_iter();
            move_to(&mut of_call, entries.by_ref().take(given));
            move_to(&mut rest, entries);
            lasting.put(rest);
        }
        let returned = match ended {
            Ok(evaluated) => returned(py, form, evaluated),
            Err(failure) => Err(ended_by(py, failure)),
        };
        LAST_USE.set(used);
        give_back(used.1);
        returned
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let recipe = &self.recipe;
        for function in &recipe.functions {
            visit.call(&*function.callable)?;
        }
        let made = self.made.load(Ordering::Relaxed);
        for (name, functions, values) in &recipe.modules {
            for (_, _, function) in functions {
                visit.call(&**function)?;
            }
            let mut constants = Objects::default();
            values.iter().for_each(|(_, value)| constants.add(value));
            // Rhai's module has each, and so has an index of it and of every module around it.
            let of_engine = 2 + name.matches("::").count();
            constants.visit(1 + made * of_engine, &visit)?;
        }
        if let Some(loader) = &recipe.loader {
            visit.call(&**loader)?;
        }
        visit.call(&self.print)?;
        visit.call(&self.debug)
    }
}

impl NativeEngine {
    fn of_thread(&self) -> PyResult<&OfThread> {
        self.threads
            .get_or_try(|| {
                let pulse = Arc::new(Pulse::default());
                let engine = stack::roomy(|| self.recipe.engine(&pulse))?;
                self.made.fetch_add(1, Ordering::Relaxed);
                Ok(Deep::new(OfThread {
                    engine,
                    compiler: Cell::new(None),
                    pulse,
                    scripts: RefCell::new(Scripts::new()),
                }))
            })
            .map(|of_thread| &**of_thread)
    }

    /// Find a script that this thread has compiled, or compile it within bounds. Of the constants, those that it names
    /// become part of it.
    fn compiled(
        &self,
        py: Python<'_>,
        of_thread: &OfThread,
        source: &str,
        name: Option<&str>,
        constants: &[(String, Dynamic)],
        bounds: &Bounds,
    ) -> PyResult<Deep<Arc<AST>>> {
        let OfThread {
            compiler,
            pulse,
            scripts,
            ..
        } = of_thread;
        let constants = scripts::named(source, constants);
        let key = scripts::key(source, name, &constants);
        let known = key.as_ref().and_then(|key| scripts.borrow_mut().find(key));
        if let Some(ast) = known {
            return Ok(Deep::new(ast));
        }
        let limits = &self.recipe.limits;
        let mut engine = compiler.take().unwrap_or_else(|| limits.compiler());
        engine.set_max_string_size(limits.longest_string(source));
        let compiled = border::rhai(py, self.stack_size, || {
            source::bound_with_copies(&mut engine, &constants);
            let _guard = Guard::compiling(pulse, bounds);
            let compiled = engine.compile_with_scope(&scope_of(&constants), source);
            match guard::stopped() {
                None => compiled
                    .map(|ast| (ast, guard::held()))
                    .map_err(|error| Failure::script(error.into())),
                Some(stop) => Err(Failure::stopped(stop, Position::NONE)),
            }
        });
        compiler.set(Some(engine));
        let (mut ast, bytes) = compiled.map_err(|failure| ended_by(py, failure))?;
        if let Some(name) = name {
            ast.set_source(name);
        }
        let ast = Arc::new(ast);
        if let Some(key) = key {
            scripts
                .borrow_mut()
                .keep(key.into_owned(), Arc::clone(&ast), bytes);
        }
        Ok(Deep::new(ast))
    }

    fn bounds(&self, timeout: Option<f64>, cancel: Option<&CancelToken>) -> PyResult<Bounds> {
        let limits = &self.recipe.limits;
        let timeout = timeout
            .or(limits.timeout)
            .map(|seconds| {
                let timeout = Duration::try_from_secs_f64(seconds).ok();
                timeout
                    .filter(|timeout| !timeout.is_zero())
                    .ok_or_else(|| PyValueError::new_err("timeout must be a positive number of seconds"))
            })
            .transpose()?;
        Ok(Bounds {
            max_operations: limits.max_operations,
            max_memory: limits.max_memory,
            timeout,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            cancel: cancel.map(CancelToken::flag),
            enclosing: AtomicPtr::default(),
        })
    }
}

impl Linked for OfThread {}

impl Recipe {
    fn engine(&self, pulse: &Arc<Pulse>) -> PyResult<Engine> {
        let mut engine = Engine::new_raw();
        engine.register_global_module(Shared::clone(&STANDARD));
        natives::register(&mut engine);
        self.limits.set(&mut engine);
        source::bound(&mut engine);
        let pulse = Arc::clone(pulse);
        engine.on_progress(move |_| pulse.operation());
        engine.on_print(host::print);
        engine.on_debug(host::debug);
        for (slot, name, iterable) in &self.types {
            object::register(&mut engine, *slot, name, *iterable);
        }
        for function in &self.functions {
            function.register(&mut engine);
        }
        for (name, functions, constants) in &self.modules {
            let module = host::module(functions, constants)?;
            engine.register_static_module(name, module.into());
        }
        if let Some(find) = &self.loader {
            engine.set_module_resolver(Loader::new(Arc::clone(find), self.limits.clone()));
        }
        Ok(engine)
    }
}

impl Limits {
    /// Bytes of stack for scripts within these limits: for what they build, and for how deep they nest. Calls took up
    /// to 36 KiB each at the default depth of expressions.
    fn stack_size(&self) -> usize {
        let call = self.max_function_expr_depth.saturating_mul(2 * 1024) + 16 * 1024;
        let calls = self.max_call_levels.saturating_mul(call);
        let expressions = self.max_expr_depth.saturating_mul(16 * 1024);
        stack::size_for(self.max_memory)
            .saturating_add(calls)
            .saturating_add(expressions)
    }

    /// Make an engine that only compiles: it folds no constants to long strings, which nothing would bound.
    pub fn compiler(&self) -> Engine {
        let mut engine = Engine::new_raw();
        self.set(&mut engine);
        engine
    }

    /// Bytes of the longest string that a source's constants may be folded to.
    pub fn longest_string(&self, source: &str) -> usize {
        match self.max_string_size {
            0 => source.len().max(FOLDED_STRING),
            longest => longest,
        }
    }

    /// Set what Rhai bounds itself; time, memory and operations are the guard's.
    fn set(&self, engine: &mut Engine) {
        engine
            .set_max_call_levels(self.max_call_levels)
            .set_max_expr_depths(self.max_expr_depth, self.max_function_expr_depth)
            .set_max_string_size(self.max_string_size)
            .set_max_array_size(self.max_array_size)
            .set_max_map_size(self.max_map_size);
        // For these Rhai takes zero at its word.
        if self.max_variables > 0 {
            engine.set_max_variables(self.max_variables);
        }
        if self.max_functions > 0 {
            engine.set_max_functions(self.max_functions);
        }
        if self.max_modules > 0 {
            engine.set_max_modules(self.max_modules);
        }
    }
}

/// Run within the thread's bounds.
fn run(
    engine: &Engine,
    ast: &AST,
    entry: &mut Entry,
    scope: &mut Scope<'static>,
    form: Form,
) -> Result<Evaluated, Failure> {
    let ended = guard::proceed().and_then(|()| match entry {
        Entry::Script => engine.eval_ast_with_scope::<Dynamic>(scope, ast),
        Entry::Function(name, arguments) => engine.call_fn_with_options(
            CallFnOptions::default(),
            scope,
            ast,
            name,
            std::mem::take(arguments),
        ),
        Entry::Pointer(pointer, arguments) => pointer.call(engine, ast, std::mem::take(arguments)),
    });
    let evaluated = ended.and_then(|value| {
        guard::proceed()?;
        let (operations, peak) = guard::used();
        Ok(Evaluated {
            text: if form == Form::Value {
                String::new()
            } else {
                text(&value)?
            },
            value: if form == Form::Text { Dynamic::UNIT } else { value },
            operations,
            peak,
        })
    });
    match (guard::stopped(), evaluated) {
        (None, Ok(evaluated)) => Ok(evaluated),
        (None, Err(error)) => Err(Failure::script(error)),
        (Some(stop), Ok(_)) => Err(Failure::stopped(stop, Position::NONE)),
        (Some(stop), Err(error)) => Err(Failure::stopped(stop, error.unwrap_inner().position())),
    }
}

/// Write a value's text, within what memory is left: it may be far longer than the value is large.
fn text(value: &Dynamic) -> Result<String, Box<EvalAltResult>> {
    if let Ok(string) = value.as_immutable_string_ref() {
        return Ok(string.to_string());
    }
    if let Ok(number) = value.as_int() {
        return Ok(number.to_string());
    }
    if let Some(object) = object::unwrap(value) {
        return border::python(|py| Ok(object.bind(py).str()?.to_cow()?.into_owned())).map_err(host::error);
    }
    bounded(format_args!("{value}")).ok_or_else(guard::out_of_memory)
}

/// What to raise for a failure: what `print` or a signal's handler raised, or Ctrl-C, if that is what stopped the script.
fn ended_by(py: Python<'_>, failure: Failure) -> PyErr {
    let failure = Deep::new(failure);
    FATAL.take().unwrap_or_else(|| raise(py, &failure))
}

fn returned(py: Python<'_>, form: Form, evaluated: Evaluated) -> PyResult<Py<PyAny>> {
    let Evaluated {
        value,
        text,
        operations,
        peak,
    } = evaluated;
    let value = Deep::new(value);
    match form {
        Form::Text => Ok(PyString::new(py, &text).into_any().unbind()),
        Form::Value => values::to_python(py, &value),
        Form::Details => values::to_python(py, &value).and_then(|value| {
            Ok((value, text, operations, peak)
                .into_pyobject(py)?
                .into_any()
                .unbind())
        }),
    }
}

/// Give memory back to the system after an evaluation that took so much.
fn give_back(peak: usize) {
    if peak > LARGE {
        stack::trim();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if peak > HUGE {
        // SAFETY: it may be called at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

fn entry_of(target: &Bound<'_, PyAny>, arguments: &Bound<'_, PyTuple>) -> PyResult<Deep<Entry>> {
    let mut arguments = values::items(arguments.iter(), 0)?;
    Ok(Deep::new(match target.cast::<FunctionPointer>() {
        Ok(pointer) => Entry::Pointer(pointer.get().pointer(), arguments.take()),
        Err(_) => Entry::Function(target.extract()?, arguments.take()),
    }))
}

/// Convert a mapping of names to values.
fn entries(mapping: &Bound<'_, PyAny>) -> PyResult<Deep<Vec<(String, Dynamic)>>> {
    let mut entries = Deep::new(Vec::new());
    let mut add = |name: Bound<'_, PyAny>, value: Bound<'_, PyAny>| -> PyResult<()> {
        entries.push((name.extract()?, values::to_rhai(&value)?));
        Ok(())
    };
    if let Ok(dict) = mapping.cast::<PyDict>() {
        dict.iter().try_for_each(|(name, value)| add(name, value))?;
    } else {
        let mapping = mapping
            .cast::<PyMapping>()
            .map_err(|_| PyTypeError::new_err("scope and constants must be mappings of names to values"))?;
        for item in mapping.items()? {
            let (name, value) = item.extract()?;
            add(name, value)?;
        }
    }
    Ok(entries)
}

fn scope_of(constants: &[&(String, Dynamic)]) -> Scope<'static> {
    let mut scope = Scope::new();
    for (name, value) in constants {
        scope.push_constant_dynamic(name.as_str(), value.clone());
    }
    scope
}

/// Move entries to the end of a scope.
fn move_to(
    scope: &mut Scope<'static>,
    entries: impl IntoIterator<Item = (String, Dynamic, Vec<rhai::ImmutableString>)>,
) {
    scope.extend(entries.into_iter().map(|(name, value, _)| {
        let constant = value.is_read_only();
        (name, constant, value)
    }));
}

/// Leave the marks of comments out.
fn documentation(comments: &[&str]) -> String {
    let marks: &[char] = &['/', '*', ' '];
    let lines = comments.iter().flat_map(|comment| comment.lines());
    let lines = lines.map(|line| line.trim_start_matches(marks).trim_end_matches(marks));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Describe the functions of the standard library: Rhai's metadata, as JSON.
///
/// Raises:
///     ValueError: Rhai could not write it.
#[pyfunction]
pub fn standard_library() -> PyResult<String> {
    let mut engine = Engine::new_raw();
    engine.register_global_module(Shared::clone(&STANDARD));
    engine
        .gen_fn_metadata_to_json(true)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}
