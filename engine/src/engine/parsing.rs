//! Safe versions of the library's functions that read numbers: the text of an error holds the text that is not a number.

use std::str::FromStr;

use rhai::{EvalAltResult, FLOAT, INT, Position};
use rust_decimal::Decimal;

use crate::bounds::guard::Fallible;
use crate::bounds::text;
use crate::engine::safe_library::Library;

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Library<'_>) {
    library.add("parse_int", |text: &str| integer(text, 10));
    library.add("parse_int", integer);
    library.add("parse_float", |text: &str| {
        let number = text.trim().parse::<FLOAT>();
        number.or_else(|error| {
            refused(format_args!(
                "Error parsing floating-point number '{text}': {error}"
            ))
        })
    });
    library.add("parse_decimal", |text: &str| {
        let number = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text));
        number.or_else(|error| refused(format_args!("Error parsing decimal number '{text}': {error}")))
    });
}

fn integer(text: &str, radix: INT) -> Fallible<INT> {
    let Some(valid) = u32::try_from(radix).ok().filter(|radix| (2..=36).contains(radix)) else {
        return refused(format_args!("Invalid radix: '{radix}'"));
    };
    let number = INT::from_str_radix(text.trim(), valid);
    number.or_else(|error| refused(format_args!("Error parsing integer number '{text}': {error}")))
}

fn refused<T>(why: std::fmt::Arguments<'_>) -> Fallible<T> {
    Err(EvalAltResult::ErrorArithmetic(text::write(why)?, Position::NONE).into())
}
