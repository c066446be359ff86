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
    allow_json_of_map(map, 0, &mut (guard::remaining() / 2))?;
    let map: BTreeMap<_, _> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    serde_json::to_string(&map).map_err(|error| error.to_string().into())
}

/// Check that there is memory for a value's JSON text, and that the value is not nested too deeply. It ends at the first part
/// that there is none for: a small value may contain another one so often that its text has no end.
fn allow_json(value: &Dynamic, depth: usize, room: &mut usize) -> Fallible<()> {
    // A locked value is the map that is being written: it contains itself. Of an array, `is_locked` would ask all items.
    if depth > JSON_DEPTH || (value.is_shared() && value.is_locked()) {
        return Err("a value that contains itself, or is nested too deeply, has no JSON text".into());
    }
    if let Ok(array) = value.as_array_ref() {
        take(2, room)?;
        array
            .iter()
            .try_for_each(|item| allow_json(item, depth + 1, room))
    } else if let Ok(map) = value.as_map_ref() {
        allow_json_of_map(&map, depth, room)
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        take(2, room)?;
        pointer
            .iter_curry()
            .try_for_each(|item| allow_json(item, depth + 1, room))
    } else if let Ok(text) = value.as_immutable_string_ref() {
        take(2 * text.len() + 3, room)
    } else if let Ok(blob) = value.as_blob_ref() {
        take(4 * blob.len() + 3, room)
    } else {
        take(32, room)
    }
}

fn allow_json_of_map(map: &Map, depth: usize, room: &mut usize) -> Fallible<()> {
    take(2, room)?;
    map.iter().try_for_each(|(key, value)| {
        take(2 * key.len() + 4, room)?;
        allow_json(value, depth + 1, room)
    })
}

fn take(bytes: usize, room: &mut usize) -> Fallible<()> {
    guard::step(); // without a memory limit, the time ends it
    guard::proceed()?;
    *room = room.checked_sub(bytes).ok_or_else(guard::out_of_memory)?;
    Ok(())
}
