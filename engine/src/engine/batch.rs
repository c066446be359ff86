//! Batches: many scripts that one thread evaluates in one call, so that no Python runs between them.

use std::str::from_utf8;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rhai::Dynamic;

use crate::bounds::cancel::CancelToken;
use crate::crossing::stack::DropOnBigStack;

/// A script: its source and the values of the constants, texts in UTF-8, and a token that stops it.
type Script = (Py<PyBytes>, Vec<Py<PyBytes>>, Py<CancelToken>);

/// A source, constants by name, and a token.
type Parts<'a, 'py> = (
    &'a str,
    Vec<(&'a str, DropOnBigStack<Dynamic>)>,
    &'a Bound<'py, PyAny>,
);

/// Scripts that one thread evaluates one after the other. Another thread can take those that have not begun.
#[pyclass(frozen, module = "rhai_tasks.engine._engine")]
pub struct Batch {
    names: Vec<String>,
    scripts: Vec<Script>,
    progress: Mutex<Progress>,
    ended: Mutex<Vec<Ended>>,
}

/// How a script has ended: its position; its text, the exception that ended it, or `None` if it is not UTF-8; the seconds that
/// it took; its operations; the peak of allocated bytes.
type Ended = (usize, Py<PyAny>, f64, u64, usize);

#[derive(Clone, Copy)]
struct Progress {
    /// Position of the first script that has not begun.
    next: usize,
    /// Position behind the last one that this batch still has.
    end: usize,
    /// When the one before `next` began, if it runs.
    began: Option<Instant>,
}

#[pymethods]
impl Batch {
    /// Args:
    ///     names: The constants that scripts see.
    ///     scripts: For each its source and the values of the constants, texts in UTF-8, and the token that stops it.
    #[new]
    fn new(names: Vec<String>, scripts: Vec<Script>) -> Self {
        let end = scripts.len();
        let progress = Progress {
            next: 0,
            end,
            began: None,
        };
        Self {
            names,
            scripts,
            progress: Mutex::new(progress),
            ended: Mutex::default(),
        }
    }

    /// How many scripts have not begun.
    #[getter]
    fn left(&self) -> usize {
        let progress = self.progress();
        progress.end - progress.next
    }

    /// The position of the script that runs, and the seconds since it began; `None`: none runs.
    #[getter]
    fn running(&self) -> Option<(usize, f64)> {
        let Progress { next, began, .. } = self.progress();
        began.map(|began| (next - 1, began.elapsed().as_secs_f64()))
    }

    /// How many scripts have begun.
    #[getter]
    fn begun(&self) -> usize {
        self.progress().next
    }

    /// Return how scripts have ended since the last call, also while another one runs.
    fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut *lock(&self.ended))
    }

    /// Take the scripts that have not begun out of the batch; return the position of the first, and that behind the last.
    fn split(&self) -> (usize, usize) {
        let mut taken = (0, 0);
        self.change(|progress| {
            taken = (progress.next, progress.end);
            progress.end = progress.next;
        });
        taken
    }
}

impl Batch {
    fn progress(&self) -> Progress {
        self.change(|_| ())
    }

    /// Change the progress, and return it.
    fn change(&self, change: impl FnOnce(&mut Progress)) -> Progress {
        // No panic can have happened while the lock was held.
        let mut progress = lock(&self.progress);
        change(&mut progress);
        *progress
    }

    /// Begin the next script, and return its position.
    pub fn begin(&self) -> Option<(usize, Instant)> {
        let mut begun = None;
        self.change(|progress| {
            if progress.next < progress.end {
                let now = Instant::now();
                begun = Some((progress.next, now));
                progress.next += 1;
                progress.began = Some(now);
            }
        });
        begun
    }

    /// Note how the script that ran has ended.
    pub fn end(&self, ended: Ended) {
        lock(&self.ended).push(ended);
        self.change(|progress| progress.began = None);
    }

    /// Return the source of a script, its constants and its token; `None`: one of the texts is not UTF-8.
    pub fn script<'py>(&self, py: Python<'py>, position: usize) -> Option<Parts<'_, 'py>> {
        let (source, values, cancel) = &self.scripts[position];
        let source = from_utf8(source.as_bytes(py)).ok()?;
        let constants = self.names.iter().zip(values).map(|(name, value)| {
            let value = from_utf8(value.as_bytes(py)).ok()?;
            Some((
                name.as_str(),
                DropOnBigStack::new(Dynamic::from(value.to_owned())),
            ))
        });
        Some((
            source,
            constants.collect::<Option<_>>()?,
            cancel.bind(py).as_any(),
        ))
    }
}

/// Lock a mutex that no code which can panic has locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
