//! Where pointers to functions come from: the engine and the script that know the functions.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;

use pyo3::prelude::*;
use rhai::AST;

use crate::crossing::Restore;
use crate::crossing::evaluation::Constants;
use crate::crossing::stack::DropOnBigStack;

/// An engine, and a script that it runs.
pub struct Origin {
    /// A `NativeEngine`.
    pub engine: Py<PyAny>,
    pub script: DropOnBigStack<Arc<AST>>,
    /// The constants that the script looks up.
    pub constants: Constants,
}

thread_local! {
    /// The origin of the values that this thread converts; null if it is not known.
    static ORIGIN: Cell<*const Origin> = const { Cell::new(ptr::null()) };
}

impl Origin {
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            engine: self.engine.clone_ref(py),
            script: DropOnBigStack::new(Arc::clone(&self.script)),
            constants: Arc::clone(&self.constants),
        }
    }

    /// Make it that of the thread while the body runs.
    pub fn during<T>(&self, body: impl FnOnce() -> T) -> T {
        let _outer = Restore::new(&ORIGIN, ptr::from_ref(self));
        body()
    }

    fn with<T>(body: impl FnOnce(&Self) -> T) -> Option<T> {
        // SAFETY: `during` puts it there, and takes it away before its borrow ends, which is after the body.
        unsafe { ORIGIN.get().as_ref() }.map(body)
    }

    /// Return the thread's, if it has one.
    pub fn current(py: Python<'_>) -> Option<Self> {
        Self::with(|origin| origin.clone_ref(py))
    }

    /// Whether the thread runs its script.
    pub fn is_current(&self) -> bool {
        Self::with(|origin| Arc::ptr_eq(&origin.script, &self.script)).unwrap_or(false)
    }
}
