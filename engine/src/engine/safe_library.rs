//! Safe versions of library functions: Rhai's own can hang, block or exhaust memory in one call.
//!
//! Results are the same. A function here replaces the one of the same signature.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt::Write;

use rhai::{
    Array, Blob, Dynamic, EvalAltResult, FnPtr, FuncRegistration, INT, ImmutableString, Map, Module,
    NativeCallContext, RhaiFunc, RhaiNativeFunc,
};

use crate::bounds::guard::{self, Fallible};
use crate::engine::sorting::{order_by, sort, sort_by};

/// Bytes of one more `Dynamic` in an array, without and with a short string.
const ELEMENT: usize = 16;
const STRING_ELEMENT: usize = ELEMENT + 48;
/// The first entry of a map takes as much as eleven.
const MAP_ENTRY: usize = 400;
/// The most levels of nesting in JSON text.
const JSON_DEPTH: usize = 100;

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Module) {
    let mut library = Library(library);
    waiting(&mut library);
    building(&mut library);
    splitting(&mut library);
    json(&mut library);
    ordering(&mut library);
    formatting(&mut library);
}

struct Library<'a>(&'a mut Module);

impl Library<'_> {
    fn add<A: 'static, const N: usize, const X: bool, R: 'static, const F: bool, Native>(
        &mut self,
        name: &str,
        function: Native,
    ) where
        Native: RhaiNativeFunc<A, N, X, R, F> + Send + Sync + 'static,
    {
        let function = function.into_rhai_function(true, false);
        self.add_raw(name, &Native::param_types(), function);
    }

    #[inline(never)] // not once for each function
    fn add_raw(&mut self, name: &str, types: &[TypeId], function: RhaiFunc) {
        FuncRegistration::new(name)
            .in_global_namespace()
            .set_into_module_raw(self.0, types, function);
    }
}

fn waiting(library: &mut Library<'_>) {
    library.add("sleep", guard::sleep);
    library.add("sleep", |seconds: INT| guard::sleep(seconds as f64));
}

fn building(library: &mut Library<'_>) {
    library.add("pad", pad_with_char);
    library.add("pad", pad_with_string);
    library.add("pad", pad_array);
    library.add("pad", pad_blob);
    library.add("blob", |length: INT| blob(length, 0));
    library.add("blob", blob);
    library.add(
        "replace",
        |s: &mut ImmutableString, from: ImmutableString, to: ImmutableString| replace(s, &from, &to),
    );
    library.add(
        "replace",
        |s: &mut ImmutableString, from: ImmutableString, to: char| replace(s, &from, &to.to_string()),
    );
    library.add(
        "replace",
        |s: &mut ImmutableString, from: char, to: ImmutableString| replace(s, &from.to_string(), &to),
    );
    library.add("replace", |s: &mut ImmutableString, from: char, to: char| {
        replace(s, &from.to_string(), &to.to_string())
    });
    library.add("to_chars", |s: ImmutableString| {
        guard::allow(s.len().saturating_mul(ELEMENT))?;
        Ok::<Array, Box<EvalAltResult>>(s.chars().map(Into::into).collect())
    });
    library.add("to_array", |blob: &mut Blob| {
        guard::allow(blob.len().saturating_mul(ELEMENT))?;
        Ok::<Array, Box<EvalAltResult>>(blob.iter().map(|&byte| INT::from(byte).into()).collect())
    });
    library.add("dedup", dedup_by);
}

fn splitting(library: &mut Library<'_>) {
    for (name, direction) in [("split", Direction::Forward), ("split_rev", Direction::Backward)] {
        library.add(name, move |s: &mut ImmutableString, by: ImmutableString| {
            split(s, &by, INT::MAX, direction)
        });
        library.add(name, move |s: &mut ImmutableString, by: char| {
            split(s, &by.to_string(), INT::MAX, direction)
        });
        library.add(
            name,
            move |s: &mut ImmutableString, by: ImmutableString, most: INT| split(s, &by, most, direction),
        );
        library.add(name, move |s: &mut ImmutableString, by: char, most: INT| {
            split(s, &by.to_string(), most, direction)
        });
    }
}

fn json(library: &mut Library<'_>) {
    library.add("to_json", to_json);
    library.add("parse_json", parse_json);
}

fn ordering(library: &mut Library<'_>) {
    for name in ["sort", "sort_by"] {
        library.add(name, sort_by);
    }
    for name in ["order", "order_by"] {
        library.add(name, order_by);
    }
    for (name, ordered, descending) in [("sort", "order", false), ("sort_desc", "order_desc", true)] {
        library.add(name, move |array: &mut Array| sort(array, descending));
        library.add(ordered, move |array: &mut Array| {
            let mut array = array.clone();
            sort(&mut array, descending)?;
            Ok::<Array, Box<EvalAltResult>>(array)
        });
    }
}

fn formatting(library: &mut Library<'_>) {
    for name in ["print", "to_string", "debug", "to_debug"] {
        library.add(name, |context: NativeCallContext, array: &mut Array| {
            format_array(&context, array)
        });
        library.add(name, |context: NativeCallContext, map: &mut Map| {
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

/// Drop elements as Rhai does; but Rhai goes on when the script has been stopped.
fn dedup_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<()> {
    array.dedup_by(|next, one| {
        guard::stopped().is_none()
            && comparer
                .call_raw(&context, None, [one.clone(), next.clone()])
                .is_ok_and(|answer| answer.as_bool().unwrap_or(false))
    });
    guard::proceed()
}

/// Read JSON as Rhai does, but check first that there is memory for the maps and elements in the text.
fn parse_json(text: ImmutableString) -> Fallible<Dynamic> {
    let (mut maps, mut elements) = (0_usize, 0_usize);
    for byte in text.bytes() {
        maps += usize::from(byte == b'{');
        elements += usize::from(matches!(byte, b',' | b'['));
    }
    guard::allow(maps * MAP_ENTRY + elements * STRING_ELEMENT + text.len())?;
    serde_json::from_str(&text).map_err(|error| error.to_string().into())
}

/// Write a map as JSON, as Rhai does. But Rhai never ends with a map that contains itself through a closure, and does not
/// check for memory.
fn to_json(map: &mut Map) -> Fallible<String> {
    let length = map_length(map, 0)
        .ok_or("a value that contains itself, or is nested too deeply, has no JSON text")?;
    guard::allow(length.saturating_mul(2))?;
    let map: BTreeMap<_, _> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    serde_json::to_string(&map).map_err(|error| error.to_string().into())
}

/// Return about the length of a value's JSON text; `None`: it is nested too deeply.
fn json_length(value: &Dynamic, depth: usize) -> Option<usize> {
    // A locked value is the map that is being written: it contains itself.
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

/// Return the bytes of a clone of the value.
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

/// Write an array as Rhai does, up to the memory limit. It never fails: Rhai would then write a text without bounds. A
/// script that was stopped stays so.
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

/// Append the text of an item; return whether there was memory for it.
fn push_debug(context: &NativeCallContext, text: &mut String, value: &mut Dynamic) -> bool {
    // An array may hold the same long string a million times, at no cost until it is printed.
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
