//! Reads the arguments of an evaluation that bound it or receive its output.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::bounds::cancel::CancelToken;
use crate::bounds::limits::Bounds;
use crate::crossing::evaluation;
use crate::engine::limits::Limits;
use crate::values::refused::refusal;

/// The bounds that an evaluation is given; `None` stands for the limit's.
#[derive(Default)]
pub struct Given<'a, 'py> {
    pub timeout: Option<&'a Bound<'py, PyAny>>,
    pub max_operations: Option<&'a Bound<'py, PyAny>>,
    pub max_memory: Option<&'a Bound<'py, PyAny>>,
    pub cancel: Option<&'a Bound<'py, PyAny>>,
}

impl Given<'_, '_> {
    /// Return the bounds of an evaluation that begins now.
    pub fn within(&self, limits: &Limits) -> PyResult<Bounds> {
        let duration = |seconds: f64| {
            let timeout = Duration::try_from_secs_f64(seconds).ok();
            timeout.filter(|timeout| !timeout.is_zero())
        };
        let timeout = match self.timeout {
            Some(given) => {
                let seconds = number("timeout", Some(given))?;
                Some(
                    seconds
                        .and_then(duration)
                        .ok_or_else(|| refusal("timeout", given))?,
                )
            }
            None => limits.timeout.and_then(duration),
        };
        let max_operations = number("max_operations", self.max_operations)?;
        let max_memory = number("max_memory", self.max_memory)?;
        let cancel = self
            .cancel
            .map(|token| match token.cast::<CancelToken>() {
                Ok(token) => Ok(token.get().flag()),
                Err(_) => Err(refusal("cancel", token)),
            })
            .transpose()?;
        let since = cancel.as_ref().and_then(|flag| flag.since);
        let deadline = timeout.and_then(|timeout| since.unwrap_or_else(Instant::now).checked_add(timeout));
        Ok(Bounds {
            max_operations: lower(limits.max_operations, max_operations),
            max_memory: lower(limits.max_memory, max_memory),
            timeout,
            deadline,
            is_late: since.is_some() && deadline.is_some_and(|deadline| deadline <= Instant::now()),
            cancel,
            check_signals: evaluation::check_signals,
        })
    }
}

/// Return the function that receives output: one evaluation's own, or the engine's.
pub fn output<'a>(
    name: &str,
    own: Option<&'a Bound<'_, PyAny>>,
    engines: &'a Py<PyAny>,
) -> PyResult<&'a Py<PyAny>> {
    match own {
        None => Ok(engines),
        Some(own) if own.is_callable() => Ok(own.as_unbound()),
        Some(other) => Err(refusal(name, other)),
    }
}

/// Read a number, which Python's truth values are not.
fn number<T>(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<T>>
where
    for<'a, 'py> T: FromPyObject<'a, 'py>,
{
    let Some(value) = value else {
        return Ok(None);
    };
    if !value.is_instance_of::<PyBool>() {
        if let Ok(number) = value.extract() {
            return Ok(Some(number));
        }
    }
    Err(refusal(name, value))
}

/// Return the lower of two limits, of which zero is none.
fn lower<T: Ord + Default>(limit: T, own: Option<T>) -> T {
    let zero = T::default();
    own.filter(|own| *own > zero && (limit == zero || *own < limit))
        .unwrap_or(limit)
}
