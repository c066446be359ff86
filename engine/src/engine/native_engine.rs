//! Engines for Python: how they compile and evaluate, on each thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rhai::{Dynamic, Engine};
use thread_local::ThreadLocal;

use crate::bounds::counter::OperationCounter;
use crate::bounds::limits::Bounds;
use crate::crossing;
use crate::crossing::stack::{self, DropOnBigStack, MayNestDeeply};
use crate::engine::args;
use crate::engine::batch::Batch;
use crate::engine::compilation::{Compilation, Compiler, documentation};
use crate::engine::given::{Given, output};
use crate::engine::limits::{Language, Limits};
use crate::engine::mentions::Mention;
use crate::engine::modules::Sources;
use crate::engine::recipe::Recipe;
use crate::engine::request::{self, Request};
use crate::engine::run::{Call, Entry, Form};
use crate::engine::variables::Variables;
use crate::host::functions::Function;
use crate::values::from_python::{entries, to_rhai};
use crate::values::known::{self, Known};
use crate::values::refused::refusal;
use crate::values::to_python::FunctionPointer;

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
    compiler: Compiler,
    counter: Arc<OperationCounter>,
}

#[pymethods]
impl NativeEngine {
    /// Args:
    ///     functions: Host functions: name, types of the parameters, callable.
    ///     types: Classes: slot, name for scripts, whether their objects can be iterated.
    ///     modules: Modules: name, functions, constants; a module before those within it.
    ///     sources: Where modules are found: a folder, or a function from a path to a source or `None`.
    ///     classes: The slots of classes.
    ///     hooks: By class, functions that return the value that scripts get for an object.
    ///     language: What scripts may say.
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
        language: Language,
        mut limits: Limits,
        print: Py<PyAny>,
        debug: Py<PyAny>,
    ) -> PyResult<Self> {
        crossing::silence_panics();
        let known = Known { classes, hooks };
        limits.language = language;
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
    /// Args:
    ///     source: The script.
    ///     name: Its name in texts of errors.
    ///     variables: Names of variables that it may use.
    ///
    /// Raises:
    ///     RhaiSyntaxError: It does not compile.
    ///     RhaiTimeout, RhaiMemoryLimit: It would exceed the limits.
    ///     RhaiPanic: The parser failed.
    fn compile(
        &self,
        py: Python<'_>,
        source: &str,
        name: Option<&str>,
        variables: Vec<String>,
    ) -> PyResult<Vec<Signature>> {
        let bounds = Given::default().within(&self.recipe.limits)?;
        let compilation = self.compilation(&[], &variables, &bounds);
        let ast = compilation.source(py, source, name)?;
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

    /// Compile a script without the optimizer, and return its mentions, as `mentions::of` does.
    ///
    /// Raises:
    ///     RhaiSyntaxError, RhaiTimeout, RhaiMemoryLimit, RhaiPanic: As `compile`.
    fn mentions(&self, py: Python<'_>, source: &str) -> PyResult<Vec<Mention>> {
        let bounds = Given::default().within(&self.recipe.limits)?;
        self.compilation(&[], &[], &bounds).mentions(py, source)
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
        request::forget_use();
        let this = slf.get();
        known::during(&this.known, || {
            let limits = &this.recipe.limits;
            let given = Given {
                timeout,
                max_operations,
                max_memory,
                cancel,
            };
            let bounds = given.within(limits)?;
            let mut variables = Variables::new(scope, constants)?;
            if let Some((target, ..)) = &entry {
                variables.add_constants_of(target);
            }
            let entry = Entry::of(entry)?;
            if let Some(text) = args {
                let args = args::read(slf.py(), text, &this.of_thread().counter, &bounds)?;
                variables.add_constant(args::NAME, args);
            }
            let declared = match limits.language.strict {
                true => variables.names()?,
                false => Vec::new(),
            };
            let script = this
                .compilation(&variables.constants, &declared, &bounds)
                .script(script)?;
            let request = Request {
                form: Form::named(form),
                script,
                entry,
                bounds,
                variables,
                print: output("print", print.as_ref(), &this.print)?,
                debug: output("debug", debug.as_ref(), &this.debug)?,
            };
            Self::run(slf, request)
        })
    }

    /// Evaluate the scripts of a batch, for about `patience` seconds.
    ///
    /// Args:
    ///     batch: The scripts.
    ///     timeout: Seconds that each has; `None`: as in the limits.
    ///     patience: Seconds after which no further script begins.
    ///     begin: Is called with the position of each script before it runs; `None`: nothing is.
    ///     print, debug: As of `evaluate`.
    ///
    /// The batch tells how they have ended.
    fn evaluate_batch<'py>(
        slf: &Bound<'py, Self>,
        batch: &Bound<'py, Batch>,
        timeout: Option<&Bound<'py, PyAny>>,
        patience: f64,
        begin: Option<&Bound<'py, PyAny>>,
        print: &Bound<'py, PyAny>,
        debug: &Bound<'py, PyAny>,
    ) {
        let (py, this, batch, started) = (slf.py(), slf.get(), batch.get(), Instant::now());
        while let Some((position, began)) = batch.begin() {
            request::forget_use();
            let text = begin
                .map_or(Ok(()), |begin| begin.call1((position,)).map(drop))
                .and_then(|()| {
                    let Some((source, constants, cancel)) = batch.script(py, position) else {
                        return Ok(py.None());
                    };
                    known::during(&this.known, || {
                        let limits = &this.recipe.limits;
                        let given = Given {
                            timeout,
                            cancel: Some(cancel),
                            ..Given::default()
                        };
                        let bounds = given.within(limits)?;
                        let mut variables = Variables::new(None, None)?;
                        for (name, value) in constants {
                            variables.add_constant(name, value);
                        }
                        let declared = match limits.language.strict {
                            true => variables.names()?,
                            false => Vec::new(),
                        };
                        let script = this
                            .compilation(&variables.constants, &declared, &bounds)
                            .source(py, source, None)?;
                        let request = Request {
                            form: Form::Text,
                            script,
                            entry: Entry::of(None)?,
                            bounds,
                            variables,
                            print: print.as_unbound(),
                            debug: debug.as_unbound(),
                        };
                        Self::run(slf, request)
                    })
                })
                .unwrap_or_else(|error| error.into_value(py).into_any());
            let (operations, peak) = request::last_use();
            batch.end((position, text, began.elapsed().as_secs_f64(), operations, peak));
            if started.elapsed().as_secs_f64() > patience {
                break;
            }
        }
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
                bounds: Given::default().within(&this.recipe.limits)?,
                variables,
                print: &this.print,
                debug: &this.debug,
            };
            Self::run(slf, request)
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.recipe.traverse(self.made.load(Ordering::Relaxed), &visit)?;
        self.known.traverse(&visit)?;
        visit.call(&self.print)?;
        visit.call(&self.debug)
    }
}

impl NativeEngine {
    fn run(slf: &Bound<'_, Self>, request: Request<'_>) -> PyResult<Py<PyAny>> {
        let this = slf.get();
        let OfThread { engine, counter, .. } = this.of_thread();
        request.run(slf.as_any(), engine, counter, this.stack_size)
    }

    fn of_thread(&self) -> &OfThread {
        self.threads.get_or(|| {
            let counter = Arc::new(OperationCounter::default());
            let engine = stack::roomy(|| self.recipe.engine(&counter));
            self.made.fetch_add(1, Ordering::Relaxed);
            DropOnBigStack::new(OfThread {
                engine,
                compiler: Compiler::new(),
                counter,
            })
        })
    }

    /// Return what a script compiles with.
    ///
    /// `variables`: names of variables beside the constants; only a strict engine uses them.
    fn compilation<'a>(
        &'a self,
        constants: &'a [(String, Dynamic)],
        variables: &'a [String],
        bounds: &'a Bounds,
    ) -> Compilation<'a> {
        let OfThread {
            compiler, counter, ..
        } = self.of_thread();
        Compilation {
            compiler,
            counter,
            limits: &self.recipe.limits,
            bounds,
            constants,
            variables,
        }
    }
}

impl MayNestDeeply for OfThread {}
