//! Writes values of scripts as JSON. Nothing is rounded, dropped or turned into another type: a value without a JSON form is
//! an error that says where it is.

use std::fmt::{self, Write};
use std::ops::{Range, RangeInclusive};
use std::time::Instant;

use pyo3::types::{PyAnyMethods, PyTypeMethods};
use rhai::{Array, Blob, Dynamic, FLOAT, FnPtr, INT, ImmutableString, Map};
use rust_decimal::Decimal;

use crate::crossing;
use crate::values::object;
use crate::values::to_python::MAX_DEPTH;

/// Why a value cannot be written.
pub enum NoJson {
    /// The writer refuses more: there is no memory left.
    Full,
    /// What the value is, and the way to it: keys and indices, innermost first.
    NoForm(String, Vec<String>),
}

impl From<fmt::Error> for NoJson {
    fn from(_: fmt::Error) -> Self {
        Self::Full
    }
}

impl NoJson {
    fn at(self, step: impl FnOnce() -> String) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::NoForm(what, mut way) => {
                way.push(step());
                Self::NoForm(what, way)
            }
        }
    }

    /// Describe it in a sentence, unless memory was lacking.
    pub fn describe(&self) -> Option<String> {
        let Self::NoForm(what, way) = self else {
            return None;
        };
        let way: String = way.iter().rev().map(String::as_str).collect();
        let place = if way.is_empty() {
            String::new()
        } else {
            format!(" at {}", shortened(&way))
        };
        Some(format!("The result has no JSON form: {what}{place}"))
    }
}

/// Write a value.
pub fn write(out: &mut impl Write, value: &Dynamic) -> Result<(), NoJson> {
    nested(out, value, 0)
}

fn nested(out: &mut impl Write, value: &Dynamic, depth: usize) -> Result<(), NoJson> {
    if depth > MAX_DEPTH {
        return none(format!("it is nested deeper than {MAX_DEPTH} levels"));
    }
    if value.is_unit() {
        out.write_str("null")?;
    } else if let Some(truth) = value.read_lock::<bool>() {
        write!(out, "{}", *truth)?;
    } else if let Some(number) = value.read_lock::<INT>() {
        write!(out, "{}", *number)?;
    } else if let Some(number) = value.read_lock::<FLOAT>() {
        if !number.is_finite() {
            return none(format!("the number {}", *number));
        }
        write!(out, "{:?}", *number)?;
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        string(out, &text)?;
    } else if let Some(letter) = value.read_lock::<char>() {
        string(out, letter.encode_utf8(&mut [0; 4]))?;
    } else if let Some(items) = value.read_lock::<Array>() {
        out.write_char('[')?;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.write_char(',')?;
            }
            nested(out, item, depth + 1).map_err(|error| error.at(|| format!("[{index}]")))?;
        }
        out.write_char(']')?;
    } else if let Some(entries) = value.read_lock::<Map>() {
        out.write_char('{')?;
        for (index, (key, item)) in entries.iter().enumerate() {
            if index > 0 {
                out.write_char(',')?;
            }
            string(out, key)?;
            out.write_char(':')?;
            nested(out, item, depth + 1).map_err(|error| error.at(|| format!(".{key}")))?;
        }
        out.write_char('}')?;
    } else {
        return other(out, value);
    }
    Ok(())
}

/// Write a value of a type that only a host function makes, or fail.
fn other(out: &mut impl Write, value: &Dynamic) -> Result<(), NoJson> {
    macro_rules! integers {
        ($($number:ty)*) => {
            $(if let Some(number) = value.read_lock::<$number>() {
                return Ok(write!(out, "{}", *number)?);
            })*
        };
    }
    integers!(u8 u16 u32 u64 u128 i8 i16 i32 i128);
    let is_range = value.is::<Range<INT>>() || value.is::<RangeInclusive<INT>>();
    none(match value {
        _ if value.is::<FnPtr>() => "a function pointer".to_owned(),
        _ if value.is::<Blob>() => "a blob".to_owned(),
        _ if value.is::<Decimal>() => "a decimal".to_owned(),
        _ if value.is::<Instant>() => "a timestamp".to_owned(),
        _ if is_range => "a range".to_owned(),
        _ => match object::unwrap(value) {
            Some(object) => {
                let class =
                    crossing::python(|py| object.bind(py).get_type().name().map(|name| name.to_string()));
                format!("an object of the class {}", class.unwrap_or_default())
            }
            None => format!("a value of the type {}", value.type_name()),
        },
    })
}

fn none(what: String) -> Result<(), NoJson> {
    Err(NoJson::NoForm(what, Vec::new()))
}

fn string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut plain = 0; // where the part begins that is not written yet
    for (place, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.write_str(&text[plain..place])?;
        plain = place + 1;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            _ => write!(out, "\\u{byte:04x}")?,
        }
    }
    out.write_str(&text[plain..])?;
    out.write_char('"')
}

/// Shorten the way to a value: a script chooses the keys.
fn shortened(way: &str) -> String {
    const LONGEST: usize = 200;
    match way.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &way[..end]),
        None => way.to_owned(),
    }
}
