//! Python callables that scripts call: functions, properties and operators of classes, modules.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rhai::{
    Dynamic, Engine, FLOAT, FnPtr, FuncRegistration, INT, ImmutableString, Module, NativeCallContext,
    RhaiFunc, Shared,
};
use rust_decimal::Decimal;

use crate::values::from_python::call;
use crate::values::object;

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

    /// Register it with an engine.
    pub fn register(&self, engine: &mut Engine) {
        let callable = Arc::clone(&self.callable);
        engine.register_raw_fn(&self.name, &self.types, move |context, arguments| {
            call(&context, &callable, arguments)
        });
    }
}

/// Make a module of Python callables and constants.
pub fn module(functions: &[Function], constants: &[(String, Dynamic)]) -> Module {
    let mut module = Module::new();
    for function in functions {
        let callable = Arc::clone(&function.callable);
        let called = move |context: Option<NativeCallContext<'_>>, arguments: &mut [&mut Dynamic]| {
            let context = context.ok_or("Rhai calls a function without its context")?;
            call(&context, &callable, arguments)
        };
        FuncRegistration::new(function.name.as_str())
            .in_internal_namespace()
            .set_into_module_raw(
                &mut module,
                &function.types,
                RhaiFunc::Pure {
                    func: Shared::new(called),
                    has_context: true,
                    is_pure: true,
                    is_volatile: true,
                },
            );
    }
    for (name, value) in constants {
        module.set_var(name.as_str(), value.clone());
    }
    module
}

/// Return the Rhai type that a parameter accepts: a name as `type_of` returns it, `any`, or `#n` for the class in slot n.
fn type_id(name: &str) -> PyResult<TypeId> {
    Ok(match name {
        "any" => TypeId::of::<Dynamic>(),
        "()" => TypeId::of::<()>(),
        "bool" => TypeId::of::<bool>(),
        "u8" => TypeId::of::<u8>(), // of the items of a blob in a loop
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
        "timestamp" => TypeId::of::<Instant>(),
        "Fn" => TypeId::of::<FnPtr>(),
        _ => name
            .strip_prefix('#')
            .and_then(|slot| object::type_id(slot.parse().ok()?))
            .ok_or_else(|| PyValueError::new_err(format!("no such parameter type: {name}")))?,
    })
}
