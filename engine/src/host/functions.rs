//! What scripts call in Python: functions, properties and operators of classes, modules, `print`.

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rhai::{
    Dynamic, Engine, EvalAltResult, FLOAT, FnPtr, FuncRegistration, INT, ImmutableString, Module,
    ModuleResolver, NativeCallContext, Position, Scope, Shared,
};
use rust_decimal::Decimal;

use crate::border::Replaced;
use crate::engine::Limits;
use crate::failure::{self, Failure};
use crate::stack::Deep;
use crate::{border, guard, object, source, values};

type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// Modules that may be loading at once, each imported by the one before: each takes stack.
const MAX_LOADING: usize = 16;

thread_local! {
    /// What this thread is at.
    static CURRENT: Cell<Current> = const {
        Cell::new(Current { evaluation: ptr::null(), call: ptr::null(), loading: ptr::null() })
    };
    /// An exception that ends the evaluation whatever the script does: KeyboardInterrupt, SystemExit, and all that
    /// `print`, `debug` or a signal's handler raises.
    pub static FATAL: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// An evaluation, and what is inside of it; each is null if there is none.
#[derive(Clone, Copy)]
pub struct Current {
    evaluation: *const Evaluation<'static>,
    /// The call that a host function serves.
    call: *const (),
    /// The module that is being loaded, on whose behalf, and so on.
    loading: *const Loading,
}

/// What an evaluation and Python have to do with each other.
pub struct Evaluation<'a> {
    /// What takes the script's texts.
    print: &'a Py<PyAny>,
    debug: &'a Py<PyAny>,
    /// The latest exception of a host function, with the text that the script saw.
    raised: RefCell<Option<(String, PyErr)>>,
    passing: RefCell<Option<Passing>>,
}

/// The latest error of a script's function that a host function called, and the exception that it became.
struct Passing {
    exception: PyErr,
    error: Deep<Box<EvalAltResult>>,
    /// What was raised, if that is the error: not to be seen until the exception comes back, since the host function may
    /// have dealt with it.
    raised: Option<(String, PyErr)>,
}

impl<'a> Evaluation<'a> {
    pub const fn new(print: &'a Py<PyAny>, debug: &'a Py<PyAny>) -> Self {
        Self {
            print,
            debug,
            raised: RefCell::new(None),
            passing: RefCell::new(None),
        }
    }

    /// Be what this thread is at, until the guard is dropped.
    pub fn begin(&self) -> Replaced<Current> {
        Replaced::new(
            &CURRENT,
            Current {
                evaluation: ptr::from_ref(self).cast(),
                call: ptr::null(),
                loading: ptr::null(),
            },
        )
    }

    /// Do something with the one that this thread is at, if there is one.
    fn with<T>(body: impl FnOnce(&Evaluation<'_>) -> T) -> Option<T> {
        // SAFETY: who has begun it keeps it until it is no longer the current one, which is after the body.
        unsafe { CURRENT.get().evaluation.as_ref() }.map(body)
    }
}

/// A host function for scripts.
pub struct Function {
    name: String,
    types: Vec<TypeId>,
    pub callable: Arc<Py<PyAny>>,
}

impl Function {
    /// `parameters` are types as `type_id` reads them.
    pub fn new(name: String, parameters: &[String], callable: Py<PyAny>) -> PyResult<Self> {
        Ok(Self {
            name,
            types: parameters
                .iter()
                .map(|name| type_id(name))
                .collect::<PyResult<_>>()?,
            callable: Arc::new(callable),
        })
    }

    /// Make it known to an engine.
    pub fn register(&self, engine: &mut Engine) {
        let callable = Arc::clone(&self.callable);
        engine.register_raw_fn(&self.name, &self.types, move |context, arguments| {
            call(&context, &callable, arguments)
        });
    }
}

/// Make a module of Python callables (by number of arguments) and constants.
pub fn module(
    functions: &[(String, usize, Arc<Py<PyAny>>)],
    constants: &[(String, Dynamic)],
) -> PyResult<Module> {
    let mut module = Module::new();
    for (name, arity, callable) in functions {
        let callable = Arc::clone(callable);
        let registration = FuncRegistration::new(name)
            .in_internal_namespace()
            .with_volatility(true);
        macro_rules! by_arity {
            ($($arity:literal: $($argument:ident)*;)*) => {
                match arity {
                    $($arity => {
                        registration.set_into_module(
                            &mut module,
                            move |context: NativeCallContext, $(mut $argument: Dynamic),*| -> Fallible<Dynamic> {
                                call(&context, &callable, &mut [$(&mut $argument),*])
                            },
                        );
                    })*
                    _ => return Err(PyValueError::new_err("functions of modules take at most 8 arguments")),
                }
            };
        }
        by_arity! {
            0: ;
            1: a;
            2: a b;
            3: a b c;
            4: a b c d;
            5: a b c d e;
            6: a b c d e f;
            7: a b c d e f g;
            8: a b c d e f g h;
        }
    }
    for (name, value) in constants {
        module.set_var(name.as_str(), value.clone());
    }
    Ok(module)
}

/// The Rhai type that a parameter accepts: a name that `type_of` says, `any`, or `#n` for a class's slot.
fn type_id(name: &str) -> PyResult<TypeId> {
    Ok(match name {
        "any" => TypeId::of::<Dynamic>(),
        "()" => TypeId::of::<()>(),
        "bool" => TypeId::of::<bool>(),
        "i64" => TypeId::of::<INT>(),
        "f64" => TypeId::of::<FLOAT>(),
        "decimal" => TypeId::of::<Decimal>(),
        "string" => TypeId::of::<ImmutableString>(),
        "char" => TypeId::of::<char>(),
        "array" => TypeId::of::<rhai::Array>(),
        "map" => TypeId::of::<rhai::Map>(),
        "blob" => TypeId::of::<rhai::Blob>(),
        "range" => TypeId::of::<std::ops::Range<INT>>(),
        "range=" => TypeId::of::<std::ops::RangeInclusive<INT>>(),
        "Fn" => TypeId::of::<FnPtr>(),
        _ => name
            .strip_prefix('#')
            .and_then(|slot| object::type_id(slot.parse().ok()?))
            .ok_or_else(|| PyValueError::new_err(format!("no such parameter type: {name}")))?,
    })
}

/// Call a Python function for a script.
pub fn call(
    context: &NativeCallContext<'_>,
    function: &Py<PyAny>,
    arguments: &mut [&mut Dynamic],
) -> Fallible<Dynamic> {
    let call = ptr::from_ref(context).cast();
    let _outer = Replaced::new(
        &CURRENT,
        Current {
            call,
            ..CURRENT.get()
        },
    );
    let called = border::python(|py| {
        let arguments = arguments
            .iter()
            .map(|value| values::to_python(py, value))
            .collect::<PyResult<Vec<_>>>()?;
        let value = function.bind(py).call1(PyTuple::new(py, arguments)?)?;
        values::to_rhai(&value)
    });
    let called = called.map_err(error);
    Evaluation::with(|evaluation| evaluation.passing.take());
    called
}

/// Call a function pointer inside the host function that was given it; `None` outside of one.
pub fn call_back(
    py: Python<'_>,
    pointer: &FnPtr,
    mut arguments: Deep<rhai::Array>,
) -> Option<PyResult<Dynamic>> {
    struct Call(*const ());
    // SAFETY: it is used on this thread alone.
    unsafe impl Send for Call {}
    let current = Call(CURRENT.get().call);
    if current.0.is_null() {
        return None;
    }
    let called = border::rhai(py, 0, move || {
        let current = &current;
        // SAFETY: `call` has put it there, and takes it away before the context ends; it is of this thread.
        let context = unsafe { &*current.0.cast::<NativeCallContext<'_>>() };
        pointer
            .call_raw(context, None, arguments.take())
            .map_err(|error| match guard::stopped() {
                Some(stop) => Failure::stopped(stop, error.unwrap_inner().position()),
                None => Failure::script(error),
            })
    });
    Some(called.map_err(|failure| {
        let exception = failure::raise(py, &failure);
        if let Failure::Script(error, ..) = failure {
            Evaluation::with(|evaluation| {
                let is_raised = has_raised(&error);
                evaluation.passing.replace(Some(Passing {
                    exception: exception.clone_ref(py),
                    error: Deep::new(error),
                    raised: is_raised.then(|| evaluation.raised.take()).flatten(),
                }))
            });
        }
        exception
    }))
}

/// Turn a host function's exception into an error that the script can catch, as it can a Rust host's. A
/// script's own error, which a host function let through, is what it was.
pub fn error(error: PyErr) -> Box<EvalAltResult> {
    let passing = Evaluation::with(|evaluation| evaluation.passing.take()).flatten();
    border::python(|py| {
        if let Some(mut passing) = passing {
            if passing.exception.value(py).is(error.value(py)) {
                if passing.raised.is_some() {
                    Evaluation::with(|evaluation| evaluation.raised.replace(passing.raised));
                }
                let nothing = EvalAltResult::ErrorRuntime(Dynamic::UNIT, Position::NONE);
                return std::mem::replace(&mut *passing.error, nothing.into());
            }
        }
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
        let raised = (message.clone(), error);
        Evaluation::with(|evaluation| evaluation.raised.replace(Some(raised)));
        message.into()
    })
}

/// Whether an error is that of the latest host function that raised.
pub fn has_raised(error: &EvalAltResult) -> bool {
    let EvalAltResult::ErrorRuntime(value, _) = error.unwrap_inner() else {
        return false;
    };
    let Ok(text) = value.as_immutable_string_ref() else {
        return false;
    };
    let is_raised = |evaluation: &Evaluation<'_>| {
        let raised = evaluation.raised.borrow();
        raised
            .as_ref()
            .is_some_and(|(message, _)| *message == text.as_str())
    };
    Evaluation::with(is_raised).unwrap_or(false)
}

/// The exception of the latest host function that raised.
pub fn raised(py: Python<'_>) -> Option<PyErr> {
    let exception = |evaluation: &Evaluation<'_>| {
        let raised = evaluation.raised.borrow();
        raised.as_ref().map(|(_, exception)| exception.clone_ref(py))
    };
    Evaluation::with(exception).flatten()
}

/// Let Python handle signals, which it does on the main thread alone: Ctrl-C would find nobody while a script runs.
/// What a handler raises ends the evaluation.
pub fn heed_signals() {
    // SAFETY: these only return numbers.
    #[cfg(target_os = "linux")]
    if unsafe { libc::gettid() != libc::getpid() } {
        return;
    }
    if let Err(error) = border::python(|py| py.check_signals()) {
        FATAL.replace(Some(error));
        guard::cancel();
    }
}

/// Hand what a script prints to Python.
pub fn print(text: &str) {
    tell(|py, evaluation| evaluation.print.call1(py, (text,)));
}

/// Hand what a script's `debug` says to Python.
pub fn debug(text: &str, source: Option<&str>, position: Position) {
    let place = (text, source, position.line(), position.position());
    tell(|py, evaluation| evaluation.debug.call1(py, place));
}

/// Tell Python; what that raises ends the evaluation.
fn tell(call: impl FnOnce(Python<'_>, &Evaluation<'_>) -> PyResult<Py<PyAny>>) {
    let told = Evaluation::with(|evaluation| border::python(|py| call(py, evaluation)));
    if let Some(Err(error)) = told {
        FATAL.replace(Some(error));
        guard::cancel();
    }
}

/// A module that is being loaded, and the one that imports it.
struct Loading {
    path: String,
    importer: *const Loading,
}

impl Loading {
    /// The module that is being loaded now, and those that import it.
    fn chain() -> impl Iterator<Item = &'static Self> {
        // SAFETY: each is alive while `CURRENT` or another that is alive points to it; callers keep none.
        let at = |loading: *const Self| unsafe { loading.as_ref() };
        std::iter::successors(at(CURRENT.get().loading), move |loading| at(loading.importer))
    }
}

/// Modules whose sources a Python callable finds: a path goes in, a source or `None` comes out.
pub struct Loader {
    find: Arc<Py<PyAny>>,
    limits: Limits,
    loaded: Mutex<HashMap<String, Shared<Module>>>,
}

impl Loader {
    pub fn new(find: Arc<Py<PyAny>>, limits: Limits) -> Self {
        Self {
            find,
            limits,
            loaded: Mutex::default(),
        }
    }

    fn load(&self, engine: &Engine, path: &str, position: Position) -> Fallible<Shared<Module>> {
        let in_module = |error: Box<EvalAltResult>| -> Box<EvalAltResult> {
            EvalAltResult::ErrorInModule(path.to_owned(), error, position).into()
        };
        let source = border::python(|py| self.find.bind(py).call1((path,))?.extract::<Option<String>>())
            .map_err(error)?
            .ok_or_else(|| EvalAltResult::ErrorModuleNotFound(path.to_owned(), position))?;
        let mut compiler = self.limits.compiler();
        source::bound_with_copies(&mut compiler, &[]);
        let mut ast = compiler
            .set_max_string_size(self.limits.longest_string(&source))
            .compile(&source)
            .map_err(|error| in_module(error.into()))?;
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
        let refused = if Loading::chain().any(|loading| loading.path == path) {
            Some(format!("module '{path}' imports itself"))
        } else {
            (Loading::chain().count() >= MAX_LOADING)
                .then(|| format!("more than {MAX_LOADING} modules import each other in a row"))
        };
        if let Some(reason) = refused {
            return Err(EvalAltResult::ErrorInModule(path.to_owned(), reason.into(), position).into());
        }
        let loading = Loading {
            path: path.to_owned(),
            importer: CURRENT.get().loading,
        };
        let current = Current {
            loading: &raw const loading,
            ..CURRENT.get()
        };
        let importer = Replaced::new(&CURRENT, current);
        let module = self.load(engine, path, position)?;
        drop(importer);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }
}
