//! Bounds the value that a `switch` hashes. Rhai hashes the whole value between two checks of the limits, and an array
//! may hold the same long text a million times.

use std::any::TypeId;
use std::sync::LazyLock;
use std::time::Instant;

use rhai::{Dynamic, Expr, FnCallExpr, FnPtr, FuncRegistration, Module, RhaiFunc, Shared};

use crate::bounds::guard;
use crate::engine::lookup;

/// No identifier begins with this sign.
const NAME: &str = "$switch";
/// More bytes than the value of any case has, since cases stand in the source.
const TOO_LARGE: usize = 64 * 1024 * 1024;
/// Bytes that each part of a value counts.
const PART: usize = 16;
/// More levels than the value of any case has: the most that `max_expr_depth` may be.
const TOO_DEEP: usize = 10_000;

static CALL: LazyLock<Option<FnCallExpr>> = LazyLock::new(|| lookup::unnameable(NAME, "f(1)"));

/// Whether a source may have a `switch`.
pub fn may_be_in(source: &str) -> bool {
    source.contains("switch")
}

/// Let a `switch` over an expression call the function first, unless the expression is a truth value or a text.
pub fn bound(subject: &mut Expr) {
    let is_small = match &*subject {
        Expr::And(..) | Expr::Or(..) | Expr::InterpolatedString(..) => true,
        Expr::FnCall(call, _) => matches!(
            call.name.as_str(),
            "==" | "!=" | "<" | "<=" | ">" | ">=" | "!" | "%" | "type_of"
        ),
        _ => subject.is_constant(),
    };
    if let Some(mut call) = CALL.clone().filter(|_| !is_small) {
        let position = subject.position();
        call.args = [std::mem::take(subject)].into_iter().collect();
        *subject = Expr::FnCall(call.into(), position);
    }
}

/// Add the function to Rhai's library.
pub fn add_to(library: &mut Module) {
    // A method: Rhai would copy the argument of a function.
    let function = RhaiFunc::Method {
        func: Shared::new(|_, arguments: &mut [&mut Dynamic]| {
            guard::proceed()?; // Rhai may have made a copy that there was no memory for
            let subject = arguments.first().ok_or("a switch without a value")?;
            Ok(if fits(subject, &mut TOO_LARGE.clone(), 0) {
                Dynamic::clone(subject)
            } else {
                Dynamic::from(Instant::now()) // no case matches a point in time
            })
        }),
        has_context: false,
        is_pure: true,
        is_volatile: true,
    };
    FuncRegistration::new(NAME)
        .in_global_namespace()
        .set_into_module_raw(library, [TypeId::of::<Dynamic>()], function);
}

/// Count the bytes of a value that Rhai would hash; return whether there was room for them. No case matches a value that does
/// not end, as one that contains itself, or that is locked, as one whose method runs.
fn fits(value: &Dynamic, room: &mut usize, depth: usize) -> bool {
    if depth > TOO_DEEP || (value.is_shared() && value.is_locked()) {
        return false;
    }
    let mut take = |bytes: usize| {
        let left = room.checked_sub(bytes);
        *room = left.unwrap_or(0);
        left.is_some()
    };
    if let Ok(text) = value.as_immutable_string_ref() {
        take(PART + text.len())
    } else if let Ok(blob) = value.as_blob_ref() {
        take(PART + blob.len())
    } else if let Ok(array) = value.as_array_ref() {
        take(PART) && array.iter().all(|item| fits(item, room, depth + 1))
    } else if let Ok(map) = value.as_map_ref() {
        let keys = map.keys().map(|key| PART + key.len()).sum();
        take(keys) && map.values().all(|item| fits(item, room, depth + 1))
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        take(PART + pointer.fn_name().len()) && pointer.iter_curry().all(|item| fits(item, room, depth + 1))
    } else {
        take(PART)
    }
}
