//! Functions that take another function by its name: those of the library, and `Fn`. A name may be as long as the script's
//! memory, and Rhai copies it into the texts of errors.

use std::any::TypeId;
use std::mem;
use std::sync::LazyLock;

use rhai::{
    Array, Dynamic, EvalAltResult, Expr, FnCallExpr, FnPtr, FuncRegistration, INT, ImmutableString,
    NativeCallContext, RhaiFunc, Shared,
};

use crate::bounds::guard::{self, Fallible};
use crate::engine::lookup;
use crate::engine::safe_library::Library;
use crate::engine::sorting::sort_by;

/// Rhai's keyword for a pointer to a function, and the function that checks the name first, which no script can name.
const POINTER: &str = "Fn";
const NAME: &str = "$name";

static CALL: LazyLock<Option<FnCallExpr>> = LazyLock::new(|| lookup::unnameable(NAME, "f(1)"));

/// Functions of arrays, and the number of arguments behind the name.
const PURE: [(&str, usize); 6] = [
    ("all", 0),
    ("reduce", 0),
    ("reduce", 1),
    ("reduce_rev", 0),
    ("reduce_rev", 1),
    ("some", 0),
];
/// The same for functions that scripts cannot call on a constant.
const CHANGING: [(&str, usize); 4] = [("drain", 0), ("filter", 0), ("map", 0), ("retain", 0)];
/// How many times its length a name takes in the text of an error: the text's memory doubles while it is written.
const IN_ERROR: usize = 2;

/// Whether a source may contain an `Fn`.
pub fn may_be_in(source: &str) -> bool {
    source.contains(POINTER)
}

/// Let an `Fn` of a name that is not in the source check first whether there is memory for the error of a missing function.
pub fn bound(call: &mut FnCallExpr) {
    if call.name != POINTER {
        return;
    }
    let ([argument], Some(mut check)) = (&mut call.args[..], CALL.clone()) else {
        return;
    };
    if !argument.is_constant() {
        let position = argument.position();
        check.args = [mem::take(argument)].into_iter().collect();
        *argument = Expr::FnCall(check.into(), position);
    }
}

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Library<'_>) {
    library.add(NAME, |name: Dynamic| {
        if let Ok(name) = name.as_immutable_string_ref() {
            allow(&name)?;
        }
        Fallible::Ok(name)
    });
    for (functions, is_pure) in [(&PURE[..], true), (&CHANGING[..], false)] {
        for &(name, others) in functions {
            add(library, name, others, is_pure);
        }
    }
    library.add_change(
        "sort",
        |context: NativeCallContext, array: &mut Array, by: ImmutableString| {
            sort_by(context, array, pointer(by)?)
        },
    );
    library.add(
        "index_of",
        |context: NativeCallContext, array: &mut Array, sought: ImmutableString| {
            index_of(&context, array, sought, 0)
        },
    );
    library.add(
        "index_of",
        |context: NativeCallContext, array: &mut Array, sought: ImmutableString, start: INT| {
            index_of(&context, array, sought, start)
        },
    );
    library.add(
        "contains",
        |context: NativeCallContext, array: &mut Array, value: Dynamic| {
            place(&context, array, &value, 0).map(|place| place.is_some())
        },
    );
}

/// Return the pointer to a function, if there is memory for the error that there is no such function.
pub fn pointer(name: ImmutableString) -> Fallible<FnPtr> {
    allow(&name)?;
    FnPtr::try_from(name)
}

fn allow(name: &str) -> Fallible<()> {
    guard::allow(name.len().saturating_mul(IN_ERROR))
}

/// Add a function that calls the one of the same name that takes a pointer.
fn add(library: &mut Library<'_>, name: &str, others: usize, is_pure: bool) {
    let call = |context: Option<NativeCallContext<'_>>, arguments: &mut [&mut Dynamic]| {
        let context = context.ok_or("Rhai calls a function without its context")?;
        if let Some(argument) = arguments.get_mut(1) {
            let name = mem::take(*argument).into_immutable_string();
            **argument = pointer(name.map_err(str::to_owned)?)?.into();
        }
        context.call_native_fn_raw(context.fn_name(), true, arguments)
    };
    let function = RhaiFunc::Method {
        func: Shared::new(call),
        has_context: true,
        is_pure,
        is_volatile: false,
    };
    let mut types = vec![TypeId::of::<Array>(), TypeId::of::<ImmutableString>()];
    types.extend((0..others).map(|_| TypeId::of::<Dynamic>()));
    library.add_raw(FuncRegistration::new(name), &types, function);
}

/// Return the place of the first item for which the function of that name returns true. If there is no such function, return
/// the place of the first item that is equal to the name.
fn index_of(
    context: &NativeCallContext,
    array: &mut Array,
    sought: ImmutableString,
    start: INT,
) -> Fallible<INT> {
    let text = Dynamic::from(sought.clone());
    if let Ok(function) = pointer(sought.clone()) {
        let mut items = Dynamic::from(mem::take(array));
        let arguments = &mut [
            &mut items,
            &mut Dynamic::from(function),
            &mut Dynamic::from(start),
        ];
        let found = context.call_native_fn_raw("index_of", true, arguments);
        *array = items.into_array().unwrap_or_default();
        match found {
            Err(error) if is_missing(&error, &sought) => {}
            found => return found.map(|found| found.as_int().unwrap_or(-1)),
        }
    }
    guard::proceed()?;
    let place = place(context, array, &text, start)?;
    Ok(place.map_or(-1, |place| place as INT))
}

/// Whether an error says that there is no function of a name.
fn is_missing(error: &EvalAltResult, name: &str) -> bool {
    match error {
        EvalAltResult::ErrorFunctionNotFound(signature, _) => signature.starts_with(name),
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => {
            matches!(&**inner, EvalAltResult::ErrorFunctionNotFound(signature, _) if signature.starts_with(name))
        }
        _ => false,
    }
}

/// Return the place of the first item from a place on that equals a value; a negative place counts from the end.
fn place(
    context: &NativeCallContext,
    array: &mut Array,
    value: &Dynamic,
    start: INT,
) -> Fallible<Option<usize>> {
    guard::proceed()?; // Rhai has copied both already
    let back = usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX);
    let start = if start < 0 {
        array.len().saturating_sub(back)
    } else {
        back
    };
    for (place, item) in array.iter_mut().enumerate().skip(start) {
        let are_of_a_type = item.type_id() == value.type_id();
        let equal = context.call_native_fn_raw("==", true, &mut [item, &mut value.clone()]);
        match equal {
            Ok(answer) if answer.as_bool().unwrap_or(false) => return Ok(Some(place)),
            Err(error) if are_of_a_type || !is_missing(&error, "==") => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}
