//! Values that cannot be passed to scripts, and where they stand within a value.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::crossing;

/// The most steps that a text shows: a value that contains itself has as many as there may be.
const MOST_STEPS: usize = 8;

/// Return the exception for an argument of a wrong type or value.
#[cold]
pub fn refusal(name: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let made = value
        .py()
        .import("rhai_tasks.engine.refusals")
        .and_then(|module| module.call_method1("refusal", (name, value)));
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// A value that cannot be passed to a script.
pub struct Refused {
    error: PyErr,
    /// The way to it: `.name` or `[0]`, innermost first.
    steps: Vec<String>,
}

impl From<PyErr> for Box<Refused> {
    #[cold]
    fn from(error: PyErr) -> Self {
        Self::new(Refused {
            error,
            steps: Vec::new(),
        })
    }
}

impl Refused {
    #[cold]
    pub fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.steps.push(format!("[{index}]"));
        self
    }

    #[cold]
    pub fn at_key(mut self: Box<Self>, key: &str) -> Box<Self> {
        let is_name = key.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
            && key
                .chars()
                .all(|other| other == '_' || other.is_ascii_alphanumeric());
        self.steps.push(if is_name {
            format!(".{key}")
        } else {
            format!("[{key:?}]")
        });
        self
    }

    /// Return the exception. Its text begins with the place, if the exception is of a kind that a text alone makes.
    ///
    /// `name`: stands for the whole value; may be empty.
    #[cold]
    pub fn error(self, py: Python<'_>, name: &str) -> PyErr {
        let Self { error, mut steps } = self;
        steps.reverse();
        let mut place = name.to_owned();
        steps.iter().take(MOST_STEPS).for_each(|step| place += step);
        if steps.len() > MOST_STEPS {
            place += "...";
        }
        if place.is_empty() {
            return error;
        }
        let class = error.get_type(py);
        let is = |other: Bound<'_, PyType>| class.is(&other);
        if is(py.get_type::<PyTypeError>())
            || is(py.get_type::<PyValueError>())
            || is(py.get_type::<PyOverflowError>())
        {
            let text = crossing::text_of(error.value(py)).unwrap_or_default();
            let placed = PyErr::from_type(class, format!("{place}: {text}"));
            if error.traceback(py).is_some() {
                placed.set_cause(py, Some(error)); // raised by code of the host
            }
            return placed;
        }
        // If there can be no note, the exception itself is what matters.
        let _ = error.value(py).call_method1("add_note", (format!("in {place}"),));
        error
    }
}
