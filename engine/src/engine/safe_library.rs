//! Library functions of Rhai that can hang, block or exhaust memory in one call, in versions that cannot.
//!
//! Results are Rhai's own. A registered function wins over the standard package's of the same signature.

use std::any::TypeId;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};

use rhai::{
    Array, Blob, Dynamic, Engine, EvalAltResult, FLOAT, FnPtr, INT, ImmutableString, Map, NativeCallContext,
    Position,
};
use rust_decimal::Decimal;

use crate::{guard, host};

type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// What one more `Dynamic` in an array costs, with a short string behind it.
const ELEMENT: usize = 16;
const STRING_ELEMENT: usize = ELEMENT + 48;
/// The first entry of a map takes as much as eleven.
const MAP_ENTRY: usize = 400;
/// Levels of nesting that JSON text is written of.
const JSON_DEPTH: usize = 100;
/// Bytes that a sort compares between two looks at the limits.
const BYTES_BETWEEN_LOOKS: usize = 64 * 1024;

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
        .register_fn("to_chars", |s: ImmutableString| {
            guard::allow(s.len().saturating_mul(ELEMENT))?;
            Ok::<Array, Box<EvalAltResult>>(s.chars().map(Into::into).collect())
        })
        .register_fn("to_array", |blob: &mut Blob| {
            guard::allow(blob.len().saturating_mul(ELEMENT))?;
            Ok::<Array, Box<EvalAltResult>>(blob.iter().map(|&byte| INT::from(byte).into()).collect())
        })
        .register_fn("dedup", dedup_by);
    for (name, direction) in [("split", Direction::Forward), ("split_rev", Direction::Backward)] {
        engine
            .register_fn(name, move |s: &mut ImmutableString, by: ImmutableString| {
                split(s, &by, INT::MAX, direction)
            })
            .register_fn(name, move |s: &mut ImmutableString, by: char| {
                split(s, &by.to_string(), INT::MAX, direction)
            })
            .register_fn(
                name,
                move |s: &mut ImmutableString, by: ImmutableString, most: INT| split(s, &by, most, direction),
            )
            .register_fn(name, move |s: &mut ImmutableString, by: char, most: INT| {
                split(s, &by.to_string(), most, direction)
            });
    }
    engine
        .register_fn("to_json", to_json)
        .register_fn("parse_json", parse_json);
    for name in ["sort", "sort_by"] {
        engine.register_fn(name, sort_by);
    }
    for (name, ordered, descending) in [("sort", "order", false), ("sort_desc", "order_desc", true)] {
        engine
            .register_fn(name, move |array: &mut Array| sort(array, descending))
            .register_fn(ordered, move |array: &mut Array| {
                let mut array = array.clone();
                sort(&mut array, descending)?;
                Ok::<Array, Box<EvalAltResult>>(array)
            });
    }
    for name in ["order", "order_by"] {
        engine.register_fn(name, order_by);
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
    let widest = with.chars().map(char::len_utf8).max().unwrap_or(1);
    guard::allow(missing.saturating_mul(widest).saturating_add(string.len()))?;
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

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Backward,
}

fn split(string: &mut ImmutableString, by: &str, most: INT, direction: Direction) -> Fallible<Array> {
    if most <= 1 || string.is_empty() || (!by.is_empty() && !string.contains(by)) {
        return Ok(vec![string.clone().into()]);
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let pieces = string.matches(by).take(most).count() + 1;
    guard::allow(pieces.saturating_mul(STRING_ELEMENT).saturating_add(string.len()))?;
    Ok(match direction {
        Direction::Forward => string.splitn(most, by).map(Into::into).collect(),
        Direction::Backward => string.rsplitn(most, by).map(Into::into).collect(),
    })
}

/// Drop elements as Rhai does; but Rhai goes on after the script was stopped.
fn dedup_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<()> {
    array.dedup_by(|next, one| {
        guard::stopped().is_none()
            && comparer
                .call_raw(&context, None, [one.clone(), next.clone()])
                .is_ok_and(|answer| answer.as_bool().unwrap_or(false))
    });
    guard::proceed()
}

/// Return a sorted copy.
fn order_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<Array> {
    let mut array = array.clone();
    sort_by(context, &mut array, comparer)?;
    Ok(array)
}

/// Sort as Rhai does, which takes an error of the comparer for an answer; but an exception of a host function
/// ends the sorting, and is the script's.
fn sort_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<()> {
    let mut failed = None;
    let sorted = panic::catch_unwind(AssertUnwindSafe(|| {
        array.sort_by(|one, other| {
            let answer = match failed {
                _ if guard::stopped().is_some() => return Ordering::Equal,
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
    guard::proceed()?;
    match (failed, sorted) {
        (Some(error), _) => Err(error),
        (None, Err(_)) => Err("error in comparer for sorting".into()), // no total order
        (None, Ok(())) => Ok(()),
    }
}

/// Sort by the order of numbers, texts and so on, as Rhai does; but Rhai compares long texts until it is done.
fn sort(array: &mut Array, descending: bool) -> Fallible<()> {
    let Some(first) = array.first().filter(|_| array.len() > 1) else {
        return Ok(());
    };
    let refused = |why: String| Err(EvalAltResult::ErrorFunctionNotFound(why, Position::NONE).into());
    let (type_id, type_name) = (first.type_id(), first.type_name());
    if array.iter().any(|item| item.type_id() != type_id) {
        return refused("elements of different types cannot be sorted".to_owned());
    }
    let Some(compare) = comparison(type_id) else {
        return refused(format!("elements of {type_name} cannot be sorted"));
    };
    let (mut compared, mut stopped) = (0, false);
    array.sort_by(|one, other| {
        if compared > BYTES_BETWEEN_LOOKS {
            compared = 0;
            stopped = guard::stopped().is_some();
        }
        if stopped {
            return Ordering::Equal;
        }
        let (ordering, bytes) = compare(one, other);
        compared += bytes;
        if descending { ordering.reverse() } else { ordering }
    });
    guard::proceed()
}

/// Says how two values of a type are ordered, and how many bytes were looked at.
type Comparison = fn(&Dynamic, &Dynamic) -> (Ordering, usize);

fn comparison(type_id: TypeId) -> Option<Comparison> {
    macro_rules! comparisons {
        ($($type:ty: $read:ident),*) => {
            $(if type_id == TypeId::of::<$type>() {
                return Some(|one, other| {
                    let ordering = one.$read().ok().partial_cmp(&other.$read().ok());
                    (ordering.unwrap_or(Ordering::Equal), size_of::<Dynamic>())
                });
            })*
        };
    }
    comparisons!(INT: as_int, char: as_char, FLOAT: as_float, Decimal: as_decimal, bool: as_bool, (): as_unit);
    (type_id == TypeId::of::<ImmutableString>()).then_some(|one, other| {
        let (Ok(one), Ok(other)) = (one.as_immutable_string_ref(), other.as_immutable_string_ref()) else {
            return (Ordering::Equal, 0);
        };
        (one.cmp(&other), one.len().min(other.len()) + size_of::<Dynamic>())
    })
}

fn order(answer: &Dynamic) -> Option<Ordering> {
    if let Ok(less) = answer.as_bool() {
        return Some(if less { Ordering::Less } else { Ordering::Greater });
    }
    answer.as_int().ok().map(|answer| answer.cmp(&0))
}

/// Read JSON as Rhai does; but it asks for the memory first, by what the text has of maps and elements.
fn parse_json(text: ImmutableString) -> Fallible<Dynamic> {
    let (mut maps, mut elements) = (0_usize, 0_usize);
    for byte in text.bytes() {
        maps += usize::from(byte == b'{');
        elements += usize::from(matches!(byte, b',' | b'['));
    }
    guard::allow(maps * MAP_ENTRY + elements * STRING_ELEMENT + text.len())?;
    serde_json::from_str(&text).map_err(|error| error.to_string().into())
}

/// Write a map as JSON, as Rhai does; but Rhai would never end with one that contains itself through a closure, and does
/// not ask for the memory.
fn to_json(map: &mut Map) -> Fallible<String> {
    let length = map_length(map, 0)
        .ok_or("a value that contains itself, or is nested too deeply, has no JSON text")?;
    guard::allow(length.saturating_mul(2))?;
    let map: BTreeMap<_, _> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    serde_json::to_string(&map).map_err(|error| error.to_string().into())
}

/// About how long a value's JSON text is; `None`: it is nested too deeply.
fn json_length(value: &Dynamic, depth: usize) -> Option<usize> {
    // What is locked is the map that is being written: it contains itself.
    if depth > JSON_DEPTH || value.is_locked() {
        return None;
    }
    if let Ok(array) = value.as_array_ref() {
        total(array.iter().map(|item| json_length(item, depth + 1)))
    } else if let Ok(map) = value.as_map_ref() {
        map_length(&map, depth)
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        total(pointer.iter_curry().map(|item| json_length(item, depth + 1)))
    } else if let Ok(text) = value.as_immutable_string_ref() {
        Some(2 * text.len() + 3)
    } else if let Ok(blob) = value.as_blob_ref() {
        Some(4 * blob.len() + 3)
    } else {
        Some(32)
    }
}

fn map_length(map: &Map, depth: usize) -> Option<usize> {
    total(
        map.iter()
            .map(|(key, value)| Some(json_length(value, depth + 1)? + 2 * key.len() + 4)),
    )
}

fn total(mut lengths: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    lengths.try_fold(2, |sum: usize, length| Some(sum.saturating_add(length?)))
}

/// Bytes that a clone of the value takes.
pub fn deep_size(value: &Dynamic) -> usize {
    if let Ok(array) = value.as_array_ref() {
        array
            .iter()
            .map(deep_size)
            .fold(ELEMENT + 24, usize::saturating_add)
    } else if let Ok(map) = value.as_map_ref() {
        map.values()
            .map(|value| deep_size(value) + MAP_ENTRY)
            .fold(ELEMENT + 24, usize::saturating_add)
    } else if let Ok(blob) = value.as_blob_ref() {
        ELEMENT + 24 + blob.len()
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        pointer
            .iter_curry()
            .map(deep_size)
            .fold(ELEMENT + 64, usize::saturating_add)
    } else {
        ELEMENT
    }
}

/// Write an array as Rhai does, as far as there is memory for it. It does not fail: Rhai would fall back on a text
/// without bounds. What was stopped is so for good.
fn format_array(context: &NativeCallContext, array: &mut Array) -> ImmutableString {
    let mut text = String::from("[");
    for (place, item) in array.iter_mut().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        if !push_debug(context, &mut text, item) {
            break;
        }
    }
    text.push(']');
    text.into()
}

fn format_map(context: &NativeCallContext, map: &mut Map) -> ImmutableString {
    let mut text = String::from("#{");
    for (place, (key, value)) in map.iter_mut().enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{key:?}: ");
        if !push_debug(context, &mut text, value) {
            break;
        }
    }
    text.push('}');
    text.into()
}

/// Say whether there was memory for it.
fn push_debug(context: &NativeCallContext, text: &mut String, value: &mut Dynamic) -> bool {
    // The same long string may stand in an array a million times, at no cost until it is printed.
    let item = match context.call_native_fn_raw("to_debug", true, &mut [value]) {
        Ok(item) if item.is_string() => item.into_immutable_string().unwrap_or_default(),
        Ok(item) => context.engine().map_type_name(item.type_name()).into(),
        Err(_) if guard::proceed().is_err() => return false,
        Err(_) => context.engine().map_type_name(value.type_name()).into(),
    };
    if text.len() + item.len() > text.capacity()
        && guard::allow((text.len() + item.len()).saturating_mul(2)).is_err()
    {
        return false;
    }
    text.push_str(&item);
    guard::proceed().is_ok()
}
