//! Safe versions of library functions: Rhai's own can hang, block or exhaust memory in one call.
//!
//! Results are the same. A function here replaces the one of the same signature.

use std::any::TypeId;

use rhai::{
    Array, Blob, Dynamic, EvalAltResult, FnPtr, FuncRegistration, INT, ImmutableString, Map, Module,
    NativeCallContext, Position, RhaiFunc, RhaiNativeFunc, Variant,
};

use crate::bounds::guard::{self, Fallible};
use crate::engine::sorting::{copy, order_by, sort, sort_by};
use crate::engine::{by_name, formatting, json, lookup, parsing, profile, safe_strings, switches};

/// Bytes of one more `Dynamic` in an array, without and with a short string.
const ELEMENT: usize = 16;
pub const STRING_ELEMENT: usize = ELEMENT + 48;
/// The first entry of a map takes as much as eleven.
pub const MAP_ENTRY: usize = 400;

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Module) {
    lookup::add_to(library);
    switches::add_to(library);
    profile::add_to(library);
    let mut library = Library(library);
    safe_strings::add_to(&mut library);
    by_name::add_to(&mut library);
    parsing::add_to(&mut library);
    waiting(&mut library);
    building(&mut library);
    splitting(&mut library);
    json::add_to(&mut library);
    ordering(&mut library);
    formatting::add_to(&mut library);
    moving(&mut library);
}

pub struct Library<'a>(&'a mut Module);

impl Library<'_> {
    pub fn add<A: 'static, const N: usize, const X: bool, R: 'static, const F: bool, Native>(
        &mut self,
        name: &str,
        function: Native,
    ) where
        Native: RhaiNativeFunc<A, N, X, R, F> + Send + Sync + 'static,
    {
        let function = function.into_rhai_function(true, false);
        self.add_raw(FuncRegistration::new(name), &Native::param_types(), function);
    }

    /// Add a method that changes its value; scripts cannot call it on a constant.
    pub fn add_change<A: 'static, const N: usize, const X: bool, R: 'static, const F: bool, Native>(
        &mut self,
        name: &str,
        function: Native,
    ) where
        Native: RhaiNativeFunc<A, N, X, R, F> + Send + Sync + 'static,
    {
        let function = function.into_rhai_function(false, false);
        self.add_raw(FuncRegistration::new(name), &Native::param_types(), function);
    }

    pub fn add_getter<A: 'static, const X: bool, R: 'static, const F: bool, Native>(
        &mut self,
        name: &str,
        function: Native,
    ) where
        Native: RhaiNativeFunc<A, 1, X, R, F> + Send + Sync + 'static,
    {
        let function = function.into_rhai_function(true, false);
        self.add_raw(
            FuncRegistration::new_getter(name),
            &Native::param_types(),
            function,
        );
    }

    /// Let scripts iterate over values of a type.
    pub fn add_iterator<T: Variant + Clone, I: Iterator<Item = Dynamic> + 'static>(
        &mut self,
        items: fn(T) -> I,
    ) {
        self.0
            .set_iter(TypeId::of::<T>(), move |value| Box::new(items(value.cast())));
    }

    #[inline(never)] // not once for each function
    pub fn add_raw(&mut self, registration: FuncRegistration, types: &[TypeId], function: RhaiFunc) {
        registration
            .in_global_namespace()
            .set_into_module_raw(self.0, types, function);
    }
}

fn waiting(library: &mut Library<'_>) {
    library.add("sleep", guard::sleep);
    library.add("sleep", |seconds: INT| guard::sleep(seconds as f64));
}

fn building(library: &mut Library<'_>) {
    library.add_change("pad", pad_with_char);
    library.add_change("pad", pad_with_string);
    library.add_change("pad", pad_array);
    library.add_change("pad", pad_blob);
    library.add_change("set", |map: &mut Map, key: ImmutableString, value: Dynamic| {
        guard::allow(key.len())?;
        map.insert(key.as_str().into(), value);
        Fallible::Ok(())
    });
    library.add("blob", |length: INT| blob(length, 0));
    library.add("blob", blob);
    library.add("to_chars", |s: ImmutableString| {
        guard::allow(s.len().saturating_mul(ELEMENT))?;
        Ok::<Array, Box<EvalAltResult>>(s.chars().map(Into::into).collect())
    });
    library.add("to_array", |blob: &mut Blob| {
        guard::allow(blob.len().saturating_mul(ELEMENT))?;
        Ok::<Array, Box<EvalAltResult>>(blob.iter().map(|&byte| INT::from(byte).into()).collect())
    });
}

/// Add the functions that move a value out of its place. They fail in a script that has been stopped: where Rhai
/// interpolates what they return, it could write a text without bounds, see `Frame::ends`.
fn moving(library: &mut Library<'_>) {
    library.add("take", |value: &mut Dynamic| {
        guard::proceed()?;
        if value.is_read_only() {
            let name = "take".to_owned();
            return Err(EvalAltResult::ErrorNonPureMethodCallOnConstant(name, Position::NONE).into());
        }
        Fallible::Ok(std::mem::take(value))
    });
    library.add_change("pop", |array: &mut Array| {
        guard::proceed().map(|()| array.pop().unwrap_or_default())
    });
    library.add_change("shift", |array: &mut Array| move_out(array, 0));
    library.add_change("remove", move_out);
    library.add_change("remove", |map: &mut Map, name: ImmutableString| {
        guard::proceed().map(|()| map.remove(name.as_str()).unwrap_or_default())
    });
}

/// `index`: from the end if it is negative.
fn move_out(array: &mut Array, index: INT) -> Fallible<Dynamic> {
    guard::proceed()?;
    let from_start = if index < 0 {
        index.saturating_add_unsigned(array.len() as u64)
    } else {
        index
    };
    Ok(match usize::try_from(from_start) {
        Ok(place) if place < array.len() => array.remove(place),
        _ => Dynamic::UNIT,
    })
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
    library.add("split", |s: &mut ImmutableString| {
        if s.is_empty() {
            return Ok(vec![s.clone().into()]);
        }
        allow_pieces(s.split_whitespace(), s.len())?;
        Fallible::<Array>::Ok(s.split_whitespace().map(Into::into).collect())
    });
}

fn ordering(library: &mut Library<'_>) {
    for name in ["sort", "sort_by"] {
        library.add_change(name, sort_by);
    }
    library.add_change("dedup", dedup_by);
    library.add_change(
        "dedup",
        |context: NativeCallContext, array: &mut Array, by: ImmutableString| {
            dedup_by(context, array, by_name::pointer(by)?)
        },
    );
    library.add_change("dedup", |context: NativeCallContext, array: &mut Array| {
        dedup(array, |one, next| {
            context.call_native_fn_raw("==", true, &mut [one, next])
        })
    });
    for name in ["order", "order_by"] {
        library.add(name, order_by);
    }
    for (name, ordered, descending) in [("sort", "order", false), ("sort_desc", "order_desc", true)] {
        library.add_change(name, move |array: &mut Array| sort(array, descending));
        library.add(ordered, move |array: &mut Array| {
            let mut array = copy(array)?;
            sort(&mut array, descending)?;
            Ok::<Array, Box<EvalAltResult>>(array)
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
    let characters = with.chars().count();
    let (times, rest) = (missing / characters, missing % characters);
    let last: usize = with.chars().take(rest).map(char::len_utf8).sum();
    let bytes = with.len().saturating_mul(times).saturating_add(last);
    guard::allow(bytes.saturating_add(string.len()))?;
    let mut text = Vec::with_capacity(string.len() + bytes);
    text.extend_from_slice(string.as_bytes());
    text.extend_from_slice(&with.as_bytes()[..with.len().min(bytes)]);
    let mut padding = string.len()..text.len();
    while padding.len() < bytes {
        let more = padding.len().min(bytes - padding.len());
        text.extend_from_within(padding.start..padding.start + more);
        padding.end = text.len();
    }
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    *string = text.into();
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
    allow_pieces(string.matches(by).take(most), string.len())?;
    Ok(match direction {
        Direction::Forward => string.splitn(most, by).map(Into::into).collect(),
        Direction::Backward => string.rsplitn(most, by).map(Into::into).collect(),
    })
}

/// Check that there is memory for the pieces of a text of this length. It ends at the first piece that there is none for.
fn allow_pieces<'a>(pieces: impl Iterator<Item = &'a str>, length: usize) -> Fallible<()> {
    let most = guard::remaining() / STRING_ELEMENT;
    let pieces = pieces.take(most).count() + 1;
    guard::allow(pieces.saturating_mul(STRING_ELEMENT).saturating_add(length))
}

/// Drop elements as Rhai does; but Rhai goes on when the script has been stopped.
fn dedup_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<()> {
    dedup(array, |one, next| {
        comparer.call_raw(&context, None, [one.clone(), next.clone()])
    })
}

fn dedup(
    array: &mut Array,
    are_equal: impl Fn(&mut Dynamic, &mut Dynamic) -> Fallible<Dynamic>,
) -> Fallible<()> {
    array.dedup_by(|next, one| {
        guard::proceed().is_ok() && are_equal(one, next).is_ok_and(|answer| answer.as_bool().unwrap_or(false))
    });
    guard::proceed()
}

/// Return the bytes of a clone of the value. A clone of a shared value shares it, too.
pub fn deep_size(value: &Dynamic) -> usize {
    if value.is_shared() {
        ELEMENT
    } else if let Ok(array) = value.as_array_ref() {
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
