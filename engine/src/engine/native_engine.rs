//! Engines for Python: how they compile and evaluate, on each thread.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};
use rhai::{AST, Dynamic, Engine, Position, Scope};
use thread_local::ThreadLocal;

use crate::bounds::cancel::CancelToken;
use crate::bounds::guard;
use crate::bounds::meter::{Bounds, OperationCounter};
use crate::crossing;
use crate::crossing::evaluation::{self, Evaluation};
use crate::crossing::origin::Origin;
use crate::crossing::stack::{self, DropOnBigStack, MayNestDeeply};
use crate::engine::limits::Limits;
use crate::engine::lookup::Kind;
use crate::engine::modules::Sources;
use crate::engine::recipe::Recipe;
use crate::engine::run::{Call, Entry, Form, ended_by, give_back, returned, run, within_bounds};
use crate::engine::scripts::{self, Scripts};
use crate::engine::variables::Variables;
use crate::engine::{args, compiling, constants, token_limits};
use crate::host::failure::Failure;
use crate::host::functions::Function;
use crate::values::from_python::{entries, to_rhai};
use crate::values::functions::Functions;
use crate::values::gc::Objects;
use crate::values::known::{self, Known};
use crate::values::refused::refusal;
use crate::values::to_python::FunctionPointer;

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
    ///     disabled: Keywords and operators that scripts cannot use.
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
        disabled: Vec<String>,
        mut limits: Limits,
        print: Py<PyAny>,
        debug: Py<PyAny>,
    ) -> PyResult<Self> {
        crossing::silence_panics();
        let known = Known { classes, hooks };
        limits.disabled = disabled;
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
                let constants = known::during(&known, || entries(constants.as_any(), &name))?;
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
        Ok(ast
            .iter_functions()
            .filter(|function| !function.name.starts_with("anon$"))
            .map(|function| {
                let parameters: Vec<_> = function.params.iter().map(|&name| name.to_owned()).collect();
                let doc = documentation(&function.comments);
                (function.name.to_owned(), parameters, doc)
            })
            .collect())
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
        slf: &Bound<'py, Self>,
        form: &str,
        script: &Bound<'py, PyAny>,
        entry: Option<Call<'py>>,
        scope: Option<&Bound<'py, PyAny>>,
        constants: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
        cancel: Option<&Bound<'py, PyAny>>,
        print: Option<Bound<'py, PyAny>>,
        debug: Option<Bound<'py, PyAny>>,
        max_operations: Option<&Bound<'py, PyAny>>,
        max_memory: Option<&Bound<'py, PyAny>>,
        args: Option<&str>,
    ) -> PyResult<Py<PyAny>> {
        LAST_USE.set((0, 0)); // a script that does not compile has used nothing
        let this = slf.get();
        known::during(&this.known, || {
            let bounds = this.bounds(timeout, max_operations, max_memory, cancel)?;
            let mut variables = Variables::new(scope, constants)?;
            if let Some((target, ..)) = &entry {
                variables.add_constants_of(target);
            }
            let entry = Entry::of(entry)?;
            if let Some(text) = args {
                let args = args::read(slf.py(), text, &this.of_thread().counter, &bounds)?;
                variables.add_constant(args::NAME, args);
            }
            let script = this.script(slf.py(), this.of_thread(), script, &variables.constants, &bounds)?;
            let request = Request {
                form: Form::named(form),
                script,
                entry,
                bounds,
                variables,
                print: output("print", print.as_ref(), &this.print)?,
                debug: output("debug", debug.as_ref(), &this.debug)?,
            };
            run_request(slf, request)
        })
    }

    /// Call a pointer after the evaluation that it comes from.
    fn call_pointer(
        slf: &Bound<'_, Self>,
        pointer: &Bound<'_, FunctionPointer>,
        arguments: Bound<'_, PyTuple>,
    ) -> PyResult<Py<PyAny>> {
        let this = slf.get();
        let Some(origin) = &pointer.get().origin else {
            return Err(refusal("target", pointer));
        };
        known::during(&this.known, || {
            let mut variables = Variables::new(None, None)?;
            variables.add_constants_of(pointer);
            let request = Request {
                form: Form::Value,
                script: DropOnBigStack::new(Arc::clone(&origin.script)),
                entry: Entry::of(Some((pointer.as_any().clone(), arguments, None, false)))?,
                bounds: this.bounds(None, None, None, None)?,
                variables,
                print: &this.print,
                debug: &this.debug,
            };
            run_request(slf, request)
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
struct Request<'a> {
    form: Form,
    script: DropOnBigStack<Arc<AST>>,
    entry: DropOnBigStack<Entry>,
    bounds: Bounds,
    variables: Variables<'a>,
    print: &'a Py<PyAny>,
    debug: &'a Py<PyAny>,
}

fn run_request(slf: &Bound<'_, NativeEngine>, request: Request<'_>) -> PyResult<Py<PyAny>> {
    let Request {
        form,
        script,
        mut entry,
        bounds,
        mut variables,
        print,
        debug,
    } = request;
    let (py, this) = (slf.py(), slf.get());
    let OfThread { engine, counter, .. } = this.of_thread();
    let origin = Origin {
        engine: slf.clone().into_any().unbind(),
        script: this.with_kept(py, &variables, script)?,
        constants: Arc::new(DropOnBigStack::new(variables.constants.take())),
    };
    variables.begin()?;
    let (held, mut used) = (variables.held, (0, 0));
    let ended = Evaluation::new(print, debug, &origin.constants).during(|| {
        origin.during(|| {
            let ended = crossing::rhai(py, this.stack_size, || {
                guard::evaluate(counter, &bounds, held, || {
                    let ended = Failure::unless_stopped(|| {
                        run(engine, &origin.script, &mut entry, &mut variables.scope, form)
                    });
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
        })
    });
    variables.came_from(origin);
    LAST_USE.set(used);
    give_back(py, used.1.saturating_sub(held));
    ended
}

impl NativeEngine {
    /// Return a script with the functions that its scope keeps, and keep its own there.
    fn with_kept(
        &self,
        py: Python<'_>,
        variables: &Variables<'_>,
        script: DropOnBigStack<Arc<AST>>,
    ) -> PyResult<DropOnBigStack<Arc<AST>>> {
        let Some(scope) = variables.lasting else {
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
        let merged = crossing::rhai(py, self.stack_size, || {
            Ok::<_, Failure>(Functions::merge(kept.as_ref(), &script))
        });
        let functions = merged.map_err(|failure| ended_by(py, failure))?;
        let whole = functions.whole();
        scope.keep_functions(functions);
        Ok(whole)
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
            let source = script.getattr(intern!(py, "source"));
            let source = source.and_then(|source| Ok(source.cast_into::<PyString>()?));
            let source = source.map_err(|_| refusal("script", script))?;
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
        timeout: Option<&Bound<'_, PyAny>>,
        max_operations: Option<&Bound<'_, PyAny>>,
        max_memory: Option<&Bound<'_, PyAny>>,
        cancel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bounds> {
        let limits = &self.recipe.limits;
        let duration = |seconds: f64| {
            let timeout = Duration::try_from_secs_f64(seconds).ok();
            timeout.filter(|timeout| !timeout.is_zero())
        };
        let timeout = match timeout {
            Some(given) => {
                let seconds = number("timeout", Some(given))?;
                Some(
                    seconds
                        .and_then(duration)
                        .ok_or_else(|| refusal("timeout", given))?,
                )
            }
            None => limits.timeout.and_then(duration),
        };
        let max_operations = number("max_operations", max_operations)?;
        let max_memory = number("max_memory", max_memory)?;
        let cancel = cancel
            .map(|token| match token.cast::<CancelToken>() {
                Ok(token) => Ok(token.get().flag()),
                Err(_) => Err(refusal("cancel", token)),
            })
            .transpose()?;
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

/// Read a number, which Python's truth values are not.
fn number<T>(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<T>>
where
    for<'a, 'py> T: FromPyObject<'a, 'py>,
{
    let Some(value) = value else {
        return Ok(None);
    };
    if !value.is_instance_of::<PyBool>() {
        if let Ok(number) = value.extract() {
            return Ok(Some(number));
        }
    }
    Err(refusal(name, value))
}

/// Return the function that receives output: one evaluation's own, or the engine's.
fn output<'a>(
    name: &str,
    own: Option<&'a Bound<'_, PyAny>>,
    engines: &'a Py<PyAny>,
) -> PyResult<&'a Py<PyAny>> {
    match own {
        None => Ok(engines),
        Some(own) if own.is_callable() => Ok(own.as_unbound()),
        Some(other) => Err(refusal(name, other)),
    }
}

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
