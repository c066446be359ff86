//! Times one of bench/engine.py's scripts in Rhai itself: no limits, no progress hook, no conversions.
//!
//! native <repetitions> < script: prints the nanoseconds of each evaluation of the compiled script, the best of
//! seven times that many. The host function `inc` adds one.

use std::error::Error;
use std::io::Read;
use std::time::Instant;

use rhai::{Dynamic, Engine, Scope};

fn main() -> Result<(), Box<dyn Error>> {
    let repetitions: u32 = std::env::args().nth(1).unwrap_or_default().parse()?;
    let mut script = String::new();
    std::io::stdin().read_to_string(&mut script)?;
    let mut engine = Engine::new();
    engine.register_fn("inc", |number: i64| number + 1);
    let ast = engine.compile(&script)?;
    let mut best = u128::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        for _ in 0..repetitions {
            let value = engine.eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &ast)?;
            let _ = std::hint::black_box(value);
        }
        best = best.min(start.elapsed().as_nanos() / u128::from(repetitions));
    }
    println!("{best}");
    Ok(())
}
