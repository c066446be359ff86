//! Sorting as in Rhai, but it ends when the script has been stopped.

use std::any::TypeId;
use std::cmp::Ordering;
use std::panic::{self, AssertUnwindSafe};

use rhai::{Array, Dynamic, EvalAltResult, FLOAT, FnPtr, INT, ImmutableString, NativeCallContext, Position};
use rust_decimal::Decimal;

use crate::bounds::guard::{self, Fallible};
use crate::crossing::evaluation;

/// Bytes that a sort compares between two checks of the limits.
const BYTES_BETWEEN_LOOKS: usize = 64 * 1024;

/// Return a sorted copy.
pub fn order_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<Array> {
    let mut array = copy(array)?;
    sort_by(context, &mut array, comparer)?;
    Ok(array)
}

/// Copy an array, if there is memory for it.
pub fn copy(array: &Array) -> Fallible<Array> {
    guard::allow(array.len().saturating_mul(size_of::<Dynamic>()))?;
    Ok(array.clone())
}

/// Sort as Rhai does, which takes an error of the comparer for an answer. But an exception of a host function ends the
/// sorting, and the script gets it.
pub fn sort_by(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Fallible<()> {
    let mut failed = None;
    let sorted = panic::catch_unwind(AssertUnwindSafe(|| {
        sort_with(array, &mut |one, other| {
            let answer = match failed {
                _ if guard::stopped().is_some() => return Ordering::Equal,
                Some(_) => return Ordering::Equal,
                None => comparer.call_raw(&context, None, [one.clone(), other.clone()]),
            };
            match answer {
                Ok(answer) => order(&answer),
                Err(error) => {
                    if evaluation::has_raised(&error) {
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

/// Sort by the order of numbers, texts and so on, as Rhai does. But Rhai cannot be stopped while it compares long texts.
pub fn sort(array: &mut Array, descending: bool) -> Fallible<()> {
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
    sort_with(array, &mut |one, other| {
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

/// Sort by a function. Both ways to compare share the code of the sorting, which takes 25 KB.
fn sort_with(array: &mut Array, compare: &mut dyn FnMut(&Dynamic, &Dynamic) -> Ordering) {
    array.sort_by(compare);
}

/// Returns the order of two values of a type, and the number of bytes compared.
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
