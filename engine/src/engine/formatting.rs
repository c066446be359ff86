//! Safe versions of the library's functions that write a value's text: it may be far longer than the value.

use std::fmt::Write;

use rhai::{Array, Blob, Dynamic, ImmutableString, Map, NativeCallContext};

use crate::bounds::guard::{self, Fallible};
use crate::bounds::text;
use crate::engine::safe_library::Library;

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Library<'_>) {
    for name in ["print", "to_string", "debug", "to_debug"] {
        library.add(name, |context: NativeCallContext, array: &mut Array| {
            format_array(&context, array)
        });
        library.add(name, |context: NativeCallContext, map: &mut Map| {
            format_map(&context, map)
        });
    }
    // They never fail: Rhai would then write the text itself. A script that was stopped stays so.
    library.add("to_string", |blob: &mut Blob| format_blob(blob));
    library.add("to_debug", |blob: &mut Blob| format_blob(blob));
    for name in ["debug", "to_debug"] {
        library.add(name, |s: ImmutableString| text::debug(&s).unwrap_or_default());
    }
    appending(library);
}

/// Append the text of any value to a string. Rhai's own write that text without bounds if the script has been stopped.
fn appending(library: &mut Library<'_>) {
    library.add(
        "+",
        |context: NativeCallContext, string: &mut ImmutableString, item: Dynamic| {
            join(string, &to_string(&context, item)?)
        },
    );
    library.add(
        "+",
        |context: NativeCallContext, item: &mut Dynamic, string: ImmutableString| {
            join(&to_string(&context, item.clone())?, &string)
        },
    );
    for name in ["+=", "append"] {
        library.add_change(
            name,
            |context: NativeCallContext, string: &mut ImmutableString, item: Dynamic| {
                *string = join(string, &to_string(&context, item)?)?;
                Fallible::Ok(())
            },
        );
    }
}

fn to_string(context: &NativeCallContext, mut item: Dynamic) -> Fallible<ImmutableString> {
    guard::proceed()?;
    let text = match context.call_native_fn_raw("to_string", true, &mut [&mut item]) {
        Ok(text) if text.is_string() => return Ok(text.into_immutable_string().unwrap_or_default()),
        Ok(other) => other.type_name().to_owned(),
        Err(_) => text::write(format_args!("{item}"))?,
    };
    Ok(context.engine().map_type_name(&text).into())
}

fn join(one: &ImmutableString, other: &ImmutableString) -> Fallible<ImmutableString> {
    if other.is_empty() {
        return Ok(one.clone());
    }
    guard::allow(one.len().saturating_add(other.len()))?;
    Ok(format!("{one}{other}").into())
}

fn format_blob(blob: &mut Blob) -> String {
    let value = Dynamic::from_blob(std::mem::take(blob));
    let text = text::write(format_args!("{value}")).unwrap_or_default();
    *blob = value.into_blob().unwrap_or_default();
    text
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
        let Ok(key) = text::debug(key) else {
            break;
        };
        let _ = write!(text, "{comma}{key}: ");
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
