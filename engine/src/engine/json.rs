//! JSON as in Rhai, but within the bounds of a script.

use std::collections::BTreeMap;

use rhai::{Dynamic, FnPtr, ImmutableString, Map};

use crate::bounds::guard::{self, Fallible};
use crate::engine::safe_library::{Library, MAP_ENTRY, STRING_ELEMENT};

/// The most levels of nesting in JSON text.
const JSON_DEPTH: usize = 100;

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Library<'_>) {
    library.add("to_json", to_json);
    library.add("parse_json", parse_json);
}

/// Read JSON as Rhai does, but check first that there is memory for the maps and elements in the text.
pub fn parse_json(text: ImmutableString) -> Fallible<Dynamic> {
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
