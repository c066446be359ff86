//! Rhai's own answers: a script on each line of the input, as a JSON string; an answer on each line of the
//! output, as a JSON object.

use std::io::{self, BufRead, Write};
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use rhai::module_resolvers::FileModuleResolver;
use rhai::{Dynamic, Engine, Scope};
use serde::Serialize;

/// What scripts have said so far.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Said {
    fn add(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn take(&self) -> Vec<String> {
        take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Serialize)]
struct Answer {
    /// Each text given to `print`.
    printed: Vec<String>,
    /// Each text given to `debug`, behind its position.
    debugged: Vec<String>,
    #[serde(flatten)]
    end: End,
}

#[derive(Serialize)]
#[serde(untagged)]
enum End {
    Value {
        output: String,
        #[serde(rename = "type")]
        type_name: String,
    },
    Error {
        error: String,
    },
}

fn end(engine: &Engine, script: &str) -> End {
    let mut scope = Scope::new();
    scope.push_constant("CONTEXT_ID", "the context");
    scope.push_constant("CALLER_ID", "the caller");
    match engine.eval_with_scope::<Dynamic>(&mut scope, script) {
        Ok(value) => End::Value {
            type_name: engine.map_type_name(value.type_name()).to_owned(),
            output: if value.is_string() {
                value.into_string().unwrap_or_default()
            } else {
                value.to_string()
            },
        },
        Err(error) => End::Error {
            error: error.to_string(),
        },
    }
}

fn main() -> io::Result<()> {
    let printed = Arc::new(Said::default());
    let debugged = Arc::new(Said::default());
    let mut engine = Engine::new();
    engine.set_module_resolver(FileModuleResolver::new_with_path(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../modules"
    )));
    let said = Arc::clone(&printed);
    engine.on_print(move |text| said.add(text.to_owned()));
    let said = Arc::clone(&debugged);
    engine.on_debug(move |text, _, position| said.add(format!("{position:?} {text}")));
    for line in io::stdin().lock().lines() {
        let script: String = serde_json::from_str(&line?)?;
        let end = end(&engine, &script);
        let answer = Answer {
            printed: printed.take(),
            debugged: debugged.take(),
            end,
        };
        let mut output = io::stdout().lock();
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}
