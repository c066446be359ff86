//! The limits of an engine, and those of them that Rhai enforces itself.

use pyo3::prelude::*;
use rhai::{Engine, Module};

use crate::crossing::stack;

/// The longest string that folding of constants may make, in bytes, unless the source is longer.
const FOLDED_STRING: usize = 1024 * 1024;

/// `rhai_tasks.Limits`, attribute by attribute.
#[derive(Clone, FromPyObject)]
pub struct Limits {
    pub timeout: Option<f64>,
    pub max_operations: u64,
    pub max_memory: usize,
    max_call_levels: usize,
    max_expr_depth: usize,
    max_function_expr_depth: usize,
    max_variables: usize,
    max_functions: usize,
    max_modules: usize,
    max_string_size: usize,
    max_array_size: usize,
    max_map_size: usize,
    /// The engine sets it.
    #[pyo3(default)]
    pub language: Language,
}

/// What scripts may say: `rhai_tasks.engine.language.Language`, attribute by attribute.
#[derive(Clone, Default, FromPyObject)]
pub struct Language {
    /// Keywords and operators that scripts cannot use.
    symbols: Vec<String>,
    /// Whether scripts may name no other variables and properties than there are.
    pub strict: bool,
    /// Whether a script is a single expression.
    pub expressions: bool,
    /// The names of the host's modules that are in no other one.
    modules: Vec<String>,
}

impl Limits {
    /// Bytes of stack for scripts within these limits: for their values, calls and expressions. Calls took up to 36 KiB each
    /// at the default depth of expressions.
    pub fn stack_size(&self) -> usize {
        let call = self.max_function_expr_depth.saturating_mul(2 * 1024) + 16 * 1024;
        let calls = self.max_call_levels.saturating_mul(call);
        let expressions = self.max_expr_depth.saturating_mul(16 * 1024);
        stack::size_for(self.max_memory)
            .saturating_add(calls)
            .saturating_add(expressions)
    }

    /// Make an engine that only compiles. It folds constants, so its strings need a limit of their own.
    pub fn compiler(&self) -> Engine {
        let mut engine = Engine::new_raw();
        self.set(&mut engine);
        if self.language.strict {
            engine.set_strict_variables(true);
            for name in &self.language.modules {
                engine.register_static_module(name, Module::new().into());
            }
        }
        engine
    }

    /// The longest string that the constants of a source may be folded to, in bytes.
    pub fn longest_string(&self, source: &str) -> usize {
        match self.max_string_size {
            0 => source.len().max(FOLDED_STRING),
            longest => longest,
        }
    }

    /// Set the limits that Rhai enforces. The guard enforces time, memory and operations.
    pub fn set(&self, engine: &mut Engine) {
        engine
            .set_max_call_levels(self.max_call_levels)
            .set_max_expr_depths(self.max_expr_depth, self.max_function_expr_depth)
            .set_max_string_size(self.max_string_size)
            .set_max_array_size(self.max_array_size)
            .set_max_map_size(self.max_map_size);
        engine.set_fail_on_invalid_map_property(self.language.strict);
        for symbol in &self.language.symbols {
            engine.disable_symbol(symbol);
        }
        // For these, zero means zero in Rhai.
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
