//! Library functions of Rhai that can hang, block or exhaust memory in one call, in versions that cannot.
//!
//! Results are Rhai's own. A registered function wins over the standard package's of the same signature.

use std::cmp::Ordering;
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};

use rhai::{
    Array, Blob, Dynamic, Engine, EvalAltResult, FnPtr, INT, ImmutableString, Map, NativeCallContext,
};

use crate::{guard, host};

type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// What one more `Dynamic` in an array costs, with a short string behind it.
const ELEMENT: usize = 16;
const STRING_ELEMENT: usize = ELEMENT + 48;

pub fn register(engine: &mut Engine) {
    engine
        .register_fn("sleep", guard::sleep)
        .register_fn("sleep", |seconds: INT| guard::sleep(seconds as f64))
        .register_fn("pad", pad_with_char)
        .register_fn("pad", pad_with_string)
        .register_fn("pad", pad_array)
        .register_fn("pad", pad_blob)
        .register_fn("blob", |length: INT| blob(length, 0))
        .register_fn("blob", blob)
        .register_fn(
            "replace",
            |s: &mut ImmutableString, from: ImmutableString, to: ImmutableString| replace(s, &from, &to),
        )
        .register_fn(
            "replace",
            |s: &mut ImmutableString, from: ImmutableString, to: char| replace(s, &from, &to.to_string()),
        )
        .register_fn(
            "replace",
            |s: &mut ImmutableString, from: char, to: ImmutableString| replace(s, &from.to_string(), &to),
        )
        .register_fn("replace", |s: &mut ImmutableString, from: char, to: char| {
            replace(s, &from.to_string(), &to.to_string())
        })
        .register_fn("split", |s: &mut ImmutableString, by: ImmutableString| {
            split(s, &by)
        })
        .register_fn("split", |s: &mut ImmutableString, by: char| {
            split(s, &by.to_string())
        });
    for name in ["sort", "sort_by"] {
        engine.register_fn(name, sort_by);
    }
    for name in ["print", "to_string", "debug", "to_debug"] {
        engine
            .register_fn(name, |context: NativeCallContext, array: &mut Array| {
                format_array(&context, array)
            })
            .register_fn(name, |context: NativeCallContext, map: &mut Map| {
                format_map(&context, map)
            });
    }
}

fn length(length: INT) -> usize {
    usize::try_from(length).unwrap_or(0)
}

fn pad_with_char(string: &mut ImmutableString, to: INT, with: char) -> Fallible<()> {
    pad_with_string(string, to, with.to_string().into())
}

fn pad_with_string(string: &mut ImmutableString, to: INT, with: ImmutableString) -> Fallible<()> {
    let missing = length(to).saturating_sub(string.chars().count());
    if missing == 0 || with.is_empty() {
        return Ok(()); // Rhai would never return for an empty padding
    }
    guard::allow(missing.saturating_mul(4).saturating_add(string.len()))?;
    string.make_mut().extend(with.chars().cycle().take(missing));
    Ok(())
}

fn pad_array(array: &mut Array, to: INT, item: Dynamic) -> Fallible<()> {
    let missing = length(to).saturating_sub(array.len());
    if missing > 0 {
        guard::allow(missing.saturating_mul(deep_size(&item)))?;
        array.resize(array.len() + missing, item);
    }
    Ok(())
}

fn pad_blob(blob: &mut Blob, to: INT, value: INT) -> Fallible<()> {
    let missing = length(to).saturating_sub(blob.len());
    if missing > 0 {
        guard::allow(missing)?;
        blob.resize(blob.len() + missing, (value & 0xff) as u8);
    }
    Ok(())
}

fn blob(size: INT, value: INT) -> Fallible<Blob> {
    guard::allow(length(size))?;
    Ok(vec![(value & 0xff) as u8; length(size)])
}

fn replace(string: &mut ImmutableString, from: &str, to: &str) -> Fallible<()> {
    if !string.is_empty() {
        let found = string.matches(from).count();
        guard::allow(found.saturating_mul(to.len()).saturating_add(string.len()))?;
        *string = string.replace(from, to).into();
    }
    Ok(())
}

fn split(string: &mut ImmutableString, by: &str) -> Fallible<Array> {
    if string.is_empty() || (!by.is_empty() && !string.contains(by)) {
        return Ok(vec![string.clone().into()]);
    }
    let pieces = string.matches(by).count() + 1;
    guard::allow(pieces.saturating_mul(STRING_ELEMENT).saturating_add(string.len()))?;
    Ok(string.split(by).map(Into::into).collect())
}

/// Sort as Rhai does, which takes an error of the comparer for an answer; but an exception of a host function
/// ends the sorting, and is the script's.
fn sort_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<()> {
    let mut failed = None;
    let sorted = panic::catch_unwind(AssertUnwindSafe(|| {
        array.sort_by(|one, other| {
            let answer = match failed {
                Some(_) => return Ordering::Equal,
                None => comparer.call_raw(&context, None, [one.clone(), other.clone()]),
            };
            match answer {
                Ok(answer) => order(&answer),
                Err(error) => {
                    if host::has_raised(&error) {
                        failed = Some(error);
                    }
                    None
                }
            }
            .unwrap_or_else(|| one.type_id().cmp(&other.type_id()))
        });
    }));
    match (failed, sorted) {
        (Some(error), _) => Err(error),
        (None, Err(_)) => Err("error in comparer for sorting".into()), // no total order
        (None, Ok(())) => Ok(()),
    }
}

fn order(answer: &Dynamic) -> Option<Ordering> {
    if let Ok(less) = answer.as_bool() {
        return Some(if less { Ordering::Less } else { Ordering::Greater });
    }
    answer.as_int().ok().map(|answer| answer.cmp(&0))
}

/// Bytes that a clone of the value takes.
fn deep_size(value: &Dynamic) -> usize {
    if let Ok(array) = value.as_array_ref() {
        array
            .iter()
            .map(deep_size)
            .fold(ELEMENT + 24, usize::saturating_add)
    } else if let Ok(map) = value.as_map_ref() {
        map.values()
            .map(|value| deep_size(value) + 64)
            .fold(ELEMENT + 24, usize::saturating_add)
    } else if let Ok(blob) = value.as_blob_ref() {
        ELEMENT + 24 + blob.len()
    } else {
        ELEMENT
    }
}

fn format_array(context: &NativeCallContext, array: &mut Array) -> Fallible<ImmutableString> {
    let mut text = String::from("[");
    for (place, item) in array.iter_mut().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        push_debug(context, &mut text, item)?;
    }
    text.push(']');
    Ok(text.into())
}

fn format_map(context: &NativeCallContext, map: &mut Map) -> Fallible<ImmutableString> {
    let mut text = String::from("#{");
    for (place, (key, value)) in map.iter_mut().enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{key:?}: ");
        push_debug(context, &mut text, value)?;
    }
    text.push('}');
    Ok(text.into())
}

fn push_debug(context: &NativeCallContext, text: &mut String, value: &mut Dynamic) -> Fallible<()> {
    // The same long string may stand in an array a million times, at no cost until it is printed.
    let item = match context.call_native_fn_raw("to_debug", true, &mut [value]) {
        Ok(item) if item.is_string() => item.into_immutable_string().unwrap_or_default(),
        Ok(item) => context.engine().map_type_name(item.type_name()).into(),
        Err(error) => {
            guard::proceed()?;
            return Err(error);
        }
    };
    if text.len() + item.len() > text.capacity() {
        guard::allow((text.len() + item.len()).saturating_mul(2))?;
    }
    text.push_str(&item);
    Ok(())
}
