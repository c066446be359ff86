//! Times what bench/engine.py times in Rhai itself: no limits, no progress hook, no Python.
//!
//! native eval <repetitions> < script: nanoseconds of each evaluation of the compiled script.
//! native convert <repetitions> < JSON: nanoseconds from a value of serde_json to one of Rhai and back.
//!
//! Both are the best of seven times that many. The host function `inc` adds one.

use std::error::Error;
use std::hint::black_box;
use std::io::Read;
use std::time::Instant;

use rhai::serde::{from_dynamic, to_dynamic};
use rhai::{Dynamic, Engine, EvalAltResult, Scope};
use serde_json::Value;

fn best(
    repetitions: u32,
    mut work: impl FnMut() -> Result<(), Box<EvalAltResult>>,
) -> Result<u128, Box<EvalAltResult>> {
    let mut best = u128::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        for _ in 0..repetitions {
            work()?;
        }
        best = best.min(start.elapsed().as_nanos() / u128::from(repetitions));
    }
    Ok(best)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().unwrap_or_default();
    let repetitions: u32 = arguments.next().unwrap_or_default().parse()?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let nanoseconds = if work == "convert" {
        let value: Value = serde_json::from_str(&text)?;
        best(repetitions, || {
            let converted = to_dynamic(&value)?;
            black_box(from_dynamic::<Value>(&converted)?);
            Ok(())
        })?
    } else {
        let mut engine = Engine::new();
        engine.register_fn("inc", |number: i64| number + 1);
        let ast = engine.compile(&text)?;
        best(repetitions, || {
            let value = engine.eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &ast)?;
            let _ = black_box(value);
            Ok(())
        })?
    };
    println!("{nanoseconds}");
    Ok(())
}
