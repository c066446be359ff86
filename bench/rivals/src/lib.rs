//! Rhai as a service would embed it: one engine for all threads, which compiles a repeated script once.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use rhai::{AST, Dynamic, Engine, Scope};

const CONTEXT: &str = "02bench";
const CALLER: &str = "03caller";
/// Scripts that are kept compiled.
const KEPT: usize = 1000;

static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::new);
static COMPILED: LazyLock<Mutex<HashMap<String, AST>>> = LazyLock::new(Mutex::default);

/// Run a script, and return its value as text.
///
/// # Errors
/// The script does not compile, or ends with an error; with its text.
///
/// # Panics
/// A thread has panicked while it kept a script.
pub fn run(script: &str) -> Result<String, String> {
    let known = COMPILED.lock().unwrap().get(script).cloned();
    let ast = match known {
        Some(ast) => ast,
        None => keep(script)?,
    };
    let mut scope = Scope::new();
    scope.push_constant("CONTEXT_ID", CONTEXT);
    scope.push_constant("CALLER_ID", CALLER);
    let value = ENGINE
        .eval_ast_with_scope::<Dynamic>(&mut scope, &ast)
        .map_err(|error| error.to_string())?;
    Ok(value.to_string())
}

fn keep(script: &str) -> Result<AST, String> {
    let ast = ENGINE.compile(script).map_err(|error| error.to_string())?;
    let mut compiled = COMPILED.lock().unwrap();
    if compiled.len() >= KEPT {
        compiled.clear();
    }
    compiled.insert(script.to_string(), ast.clone());
    Ok(ast)
}
