//! Reads the arguments of a script: a JSON object, which becomes a map. No number is rounded.

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rhai::{Dynamic, EvalAltResult, INT, Position};

use crate::bounds::counter::OperationCounter;
use crate::bounds::guard;
use crate::bounds::limits::Bounds;
use crate::crossing::stack::DropOnBigStack;
use crate::engine::json;
use crate::engine::run::ended_by;
use crate::host::failure::Failure;

create_exception!(
    rhai_tasks.engine._engine,
    ArgsError,
    PyValueError,
    "The text of a script's arguments is not a JSON object, or has a number that no script can hold."
);

/// The name of the constant.
pub const NAME: &str = "ARGS";

/// Read the text within bounds.
///
/// Raises:
///     ArgsError: It cannot be read; the text says why.
///     RhaiMemoryLimit, RhaiTimeout: It takes more than the bounds allow.
pub fn read(
    py: Python<'_>,
    text: &str,
    counter: &OperationCounter,
    bounds: &Bounds,
) -> PyResult<DropOnBigStack<Dynamic>> {
    guard::evaluate(counter, bounds, 0, || {
        let read = object(text).map(DropOnBigStack::new);
        match guard::stopped() {
            Some(stop) => Err(ended_by(py, Failure::stopped(stop, Position::NONE))),
            None => read.map_err(ArgsError::new_err),
        }
    })
}

fn object(text: &str) -> Result<Dynamic, String> {
    if !text.trim_start().starts_with('{') {
        return Err("it begins with no brace".to_owned());
    }
    if let Some(number) = too_large(text) {
        return Err(format!("integer {number} does not fit a script's 64 bits"));
    }
    json::parse_json(text.into()).map_err(|error| match *error {
        EvalAltResult::ErrorRuntime(reason, _) => reason.to_string(),
        error => error.to_string(),
    })
}

/// Return the first integer of more than 64 bits, for which the parser would take another number.
fn too_large(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let start = place;
        place += 1;
        if byte == b'"' {
            while bytes.get(place).is_some_and(|&byte| byte != b'"') {
                place += 1 + usize::from(bytes[place] == b'\\');
            }
            place += 1;
        } else if byte == b'-' || byte.is_ascii_digit() {
            let is_part = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
            place += bytes[place..].iter().take_while(|byte| is_part(byte)).count();
            let number = text.get(start..place)?;
            if !number.contains(['.', 'e', 'E']) && number != "-" && number.parse::<INT>().is_err() {
                return Some(number);
            }
        }
    }
    None
}
