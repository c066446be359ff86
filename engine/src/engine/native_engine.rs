//! Engines for Python: how they compile and evaluate, on each thread.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use rhai::{AST, Dynamic, Engine, Position, Scope};
use thread_local::ThreadLocal;

use crate::bounds::cancel::CancelToken;
use crate::bounds::guard;
use crate::bounds::meter::{Bounds, OperationCounter};
use crate::crossing;
use crate::crossing::evaluation::{self, Evaluation};
use crate::crossing::stack::{self, DropOnBigStack, MayNestDeeply};
use crate::engine::limits::Limits;
use crate::engine::lookup::Kind;
use crate::engine::modules::Sources;
use crate::engine::recipe::Recipe;
use crate::engine::run::{Entry, Form, ended_by, give_back, returned, run, within_bounds};
use crate::engine::scripts::{self, Scripts};
use crate::engine::variables::Variables;
use crate::engine::{args, compiling, constants, token_limits};
use crate::host::failure::Failure;
use crate::host::functions::Function;
use crate::values::from_python::{entries, to_rhai};
use crate::values::gc::Objects;
use crate::values::known::{self, Known};

thread_local! {
    /// Operations and peak bytes of the evaluation that ended last in this thread.
    static LAST_USE: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// Return the operations and the peak of allocated bytes of the evaluation that ended last in this thread, also if it failed.
#[pyfunction]
pub fn last_use() -> (u64, usize) {
    LAST_USE.get()
}

/// A host function: name, types of the parameters, callable.
type NativeFunction = (String, Vec<String>, Py<PyAny>);

/// A script's function: name, parameters, doc comment.
type Signature = (String, Vec<String>, String);

/// Evaluates scripts, on any thread. Each thread has its own Rhai engine and compiled scripts: shared ones lose half their
/// speed to reference counts.
#[pyclass(frozen, module = "rhai_tasks.engine._engine")]
pub struct NativeEngine {
    recipe: Recipe,
    threads: ThreadLocal<DropOnBigStack<OfThread>>,
    /// The number of `threads`; each is made while Python's lock is held.
    made: AtomicUsize,
    known: Known,
    print: Py<PyAny>,
    debug: Py<PyAny>,
    stack_size: usize,
}

struct OfThread {
    engine: Engine,
    /// Missing while it compiles: a signal handler may compile meanwhile.
    compiler: Cell<Option<Engine>>,
    counter: Arc<OperationCounter>,
    scripts: RefCell<Scripts>,
}

#[pymethods]
impl NativeEngine {
    /// Args:
    ///     functions: Host functions: name, types of the parameters, callable.
    ///     types: Classes: slot, name for scripts, whether their objects can be iterated.
    ///     modules: Modules: name, functions, constants; a module before those within it.
    ///     sources: Where modules are found: a folder, or a function from a path to a source or `None`.
    ///     classes: The slots of classes.
    ///     hooks: What scripts are given in place of objects: functions by class.
    ///     limits: The `Limits` of every evaluation.
    ///     print: Receives the lines that scripts print, unless an evaluation has its own.
    ///     debug: The same for `debug`: text, source, line, column.
    #[new]
    #[allow(clippy::type_complexity, clippy::too_many_arguments)]
    fn new(
        functions: Vec<NativeFunction>,
        types: Vec<(usize, String, bool)>,
        modules: Vec<(String, Vec<NativeFunction>, Bound<'_, PyDict>)>,
        sources: Option<Sources>,
        classes: Py<PyDict>,
        hooks: Py<PyDict>,
        limits: Limits,
        print: Py<PyAny>,
        debug: Py<PyAny>,
    ) -> PyResult<Self> {
        crossing::silence_panics();
        let known = Known { classes, hooks };
        let native = |functions: Vec<NativeFunction>| {
            let functions = functions.into_iter();
            functions
                .map(|(name, parameters, function)| Function::new(name, &parameters, function))
                .collect::<PyResult<_>>()
        };
        let functions = native(functions)?;
        let modules = modules
            .into_iter()
            .map(|(name, functions, constants)| {
                let constants = known::during(&known, || entries(constants.as_any()))?;
                Ok((name, native(functions)?, constants))
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            stack_size: limits.stack_size(),
            recipe: Recipe {
                functions,
                types,
                modules,
                sources,
                limits,
            },
            threads: ThreadLocal::new(),
            made: AtomicUsize::new(0),
            known,
            print,
            debug,
        })
    }

    /// Compile a script, and return its functions: name, parameters, doc comment.
    ///
    /// Raises:
    ///     RhaiSyntaxError: It does not compile.
    ///     RhaiTimeout, RhaiMemoryLimit: It would exceed the limits.
    ///     RhaiPanic: The parser failed.
    fn compile(&self, py: Python<'_>, source: &str, name: Option<&str>) -> PyResult<Vec<Signature>> {
        let bounds = self.bounds(None, None, None, None)?;
        let ast = self.compiled(py, self.of_thread(), source, name, &[], &bounds)?;
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

    /// Return whether a value can be passed to scripts.
    fn passes(&self, value: &Bound<'_, PyAny>) -> bool {
        known::during(&self.known, || {
            to_rhai(value, "").map(DropOnBigStack::new).is_ok()
        })
    }

    /// Evaluate a script.
    ///
    /// Args:
    ///     form: "text", "value", "json" or "details": what to return.
    ///     script: Its source, or an `AST`.
    ///     entry: A function to call, its name or a pointer, and its arguments; `None`: the script itself.
    ///     scope: A `NativeScope`, which keeps the changes of the script, or a mapping.
    ///     constants: A mapping.
    ///     timeout: Seconds; `None`: as in the limits.
    ///     cancel: Stops the script from another thread.
    ///     print: Receives the lines that it prints; `None`: the engine's.
    ///     debug: The same for `debug`.
    ///     max_operations, max_memory: Count where they are lower than the limits; `None`: as in the limits.
    ///     args: The constant `ARGS` as JSON text.
    ///
    /// Returns:
    ///     The text, the value, a tuple of text and JSON, or a tuple of value, text, operations, and the peak of allocated bytes.
    #[pyo3(signature = (form, script, entry, scope, constants, timeout, cancel, print, debug, max_operations=None, max_memory=None, args=None))]
    #[allow(clippy::too_many_arguments)] // by position: a tuple or names would take longer than a short script
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
        max_operations: Option<u64>,
        max_memory: Option<usize>,
        args: Option<&str>,
    ) -> PyResult<Py<PyAny>> {
        LAST_USE.set((0, 0)); // a script that does not compile has used nothing
        known::during(&self.known, || {
            let bounds = self.bounds(timeout, max_operations, max_memory, cancel)?;
            let mut variables = Variables::new(scope, constants)?;
            if let Some((target, _)) = &entry {
                variables.add_constants_of(target);
            }
            if let Some(text) = args {
                variables.add_constant(
                    args::NAME,
                    args::read(py, text, &self.of_thread().counter, &bounds)?,
                );
            }
            let request = Request {
                form: Form::named(form),
                script,
                entry: Entry::of(entry)?,
                bounds,
                variables,
                print: print.as_ref().unwrap_or(&self.print),
                debug: debug.as_ref().unwrap_or(&self.debug),
            };
            self.run(py, request)
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let recipe = &self.recipe;
        for function in &recipe.functions {
            visit.call(&*function.callable)?;
        }
        let made = self.made.load(Ordering::Relaxed);
        for (name, functions, values) in &recipe.modules {
            for function in functions {
                visit.call(&*function.callable)?;
            }
            let mut constants = Objects::default();
            values.iter().for_each(|(_, value)| constants.add(value));
            // Rhai's module has each value once, and so have its index and that of each module around it.
            let of_engine = 2 + name.matches("::").count();
            constants.visit(1 + made * of_engine, &visit)?;
        }
        if let Some(Sources::Function(find)) = &recipe.sources {
            visit.call(&**find)?;
        }
        self.known.traverse(&visit)?;
        visit.call(&self.print)?;
        visit.call(&self.debug)
    }
}

/// An evaluation that Python asks for.
struct Request<'a, 'py> {
    form: Form,
    script: &'a Bound<'py, PyAny>,
    entry: DropOnBigStack<Entry>,
    bounds: Bounds,
    variables: Variables<'a>,
    print: &'a Py<PyAny>,
    debug: &'a Py<PyAny>,
}

impl NativeEngine {
    fn run(&self, py: Python<'_>, request: Request<'_, '_>) -> PyResult<Py<PyAny>> {
        let Request {
            form,
            script,
            mut entry,
            bounds,
            mut variables,
            print,
            debug,
        } = request;
        let of_thread = self.of_thread();
        let ast = self.script(py, of_thread, script, &variables.constants, &bounds)?;
        let OfThread { engine, counter, .. } = of_thread;
        variables.begin()?;
        let (held, mut used) = (variables.held, (0, 0));
        let constants = Arc::new(DropOnBigStack::new(variables.constants.take()));
        let ended = Evaluation::new(print, debug, &constants).during(|| {
            let ended = crossing::rhai(py, self.stack_size, || {
                guard::evaluate(counter, &bounds, held, || {
                    let ended =
                        Failure::unless_stopped(|| run(engine, &ast, &mut entry, &mut variables.scope, form));
                    used = guard::used();
                    variables.free();
                    variables.added = guard::held() as isize - held as isize;
                    ended
                })
            });
            variables.end();
            match ended {
                Ok(evaluated) if evaluated.is_small() => returned(py, form, evaluated),
                // A large value takes time, and more memory in Python than it did here.
                ended => guard::evaluate(counter, &bounds, 0, || match ended {
                    Ok(evaluated) => within_bounds(py, returned(py, form, evaluated)),
                    Err(failure) => Err(ended_by(py, failure)),
                }),
            }
        });
        LAST_USE.set(used);
        give_back(py, used.1.saturating_sub(held));
        ended
    }

    fn of_thread(&self) -> &OfThread {
        self.threads.get_or(|| {
            let counter = Arc::new(OperationCounter::default());
            let engine = stack::roomy(|| self.recipe.engine(&counter));
            self.made.fetch_add(1, Ordering::Relaxed);
            DropOnBigStack::new(OfThread {
                engine,
                compiler: Cell::new(None),
                counter,
                scripts: RefCell::new(Scripts::new()),
            })
        })
    }

    /// Compile a source, or an `AST`: its source, behind the functions of its library.
    fn script(
        &self,
        py: Python<'_>,
        of_thread: &OfThread,
        script: &Bound<'_, PyAny>,
        constants: &[(String, Dynamic)],
        bounds: &Bounds,
    ) -> PyResult<DropOnBigStack<Arc<AST>>> {
        if let Ok(source) = script.cast::<PyString>() {
            return self.compiled(py, of_thread, source.to_str()?, None, constants, bounds);
        }
        let part = |script: &Bound<'_, PyAny>| {
            let source = script.getattr(intern!(py, "source"))?.cast_into::<PyString>()?;
            let name: Option<String> = script.getattr(intern!(py, "name"))?.extract()?;
            self.compiled(
                py,
                of_thread,
                source.to_str()?,
                name.as_deref(),
                constants,
                bounds,
            )
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
        let merged = crossing::rhai(py, self.stack_size, || {
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
    fn compiled(
        &self,
        py: Python<'_>,
        of_thread: &OfThread,
        source: &str,
        name: Option<&str>,
        constants: &[(String, Dynamic)],
        bounds: &Bounds,
    ) -> PyResult<DropOnBigStack<Arc<AST>>> {
        let OfThread {
            compiler,
            counter,
            scripts,
            ..
        } = of_thread;
        let constants = scripts::named(source, constants);
        let key = scripts::key(source, name, &constants);
        let known = scripts.borrow_mut().find(&key);
        if let Some(ast) = known {
            return Ok(DropOnBigStack::new(ast));
        }
        let limits = &self.recipe.limits;
        let mut engine = compiler.take().unwrap_or_else(|| limits.compiler());
        engine.set_max_string_size(limits.longest_string(source));
        let compiled = crossing::rhai(py, self.stack_size, || {
            token_limits::bound_with_copies(&mut engine);
            guard::compile(counter, bounds, || {
                Failure::unless_stopped(|| {
                    let compiled = compiling::compile(&mut engine, &scope_of(&constants), source);
                    let compiled = compiled.map(|ast| match &*constants {
                        [] => ast,
                        constants => constants::look_up(&ast, constants),
                    });
                    match guard::stopped() {
                        None => compiled
                            .map(|ast| (ast, guard::held()))
                            .map_err(|error| Failure::script(error.into())),
                        Some(stop) => Err(Failure::stopped(stop, Position::NONE)),
                    }
                })
            })
        });
        compiler.set(Some(engine));
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

    fn bounds(
        &self,
        timeout: Option<f64>,
        max_operations: Option<u64>,
        max_memory: Option<usize>,
        cancel: Option<&CancelToken>,
    ) -> PyResult<Bounds> {
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
        let cancel = cancel.map(CancelToken::flag);
        let since = cancel.as_ref().and_then(|flag| flag.since);
        let deadline = timeout.and_then(|timeout| since.unwrap_or_else(Instant::now).checked_add(timeout));
        Ok(Bounds {
            max_operations: lower(limits.max_operations, max_operations),
            max_memory: lower(limits.max_memory, max_memory),
            timeout,
            deadline,
            is_late: since.is_some() && deadline.is_some_and(|deadline| deadline <= Instant::now()),
            cancel,
            check_signals: evaluation::check_signals,
        })
    }
}

impl MayNestDeeply for OfThread {}

/// Return the lower of two limits, of which zero is none.
fn lower<T: Ord + Default>(limit: T, own: Option<T>) -> T {
    let zero = T::default();
    own.filter(|own| *own > zero && (limit == zero || *own < limit))
        .unwrap_or(limit)
}

/// Return a scope with the names of constants. They are variables there: the optimizer puts no values into the script.
fn scope_of(constants: &[(&str, Kind)]) -> Scope<'static> {
    let mut scope = Scope::new();
    for &(name, _) in constants {
        scope.push(name, ());
    }
    scope
}

/// Remove the marks of comments.
fn documentation(comments: &[&str]) -> String {
    let marks: &[char] = &['/', '*', ' '];
    let lines = comments.iter().flat_map(|comment| comment.lines());
    let lines = lines.map(|line| line.trim_start_matches(marks).trim_end_matches(marks));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
