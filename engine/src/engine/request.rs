//! Runs an evaluation that Python asks for, from its variables to the Python value that it returns.

use std::cell::Cell;
use std::sync::Arc;

use pyo3::prelude::*;
use rhai::Engine;

use crate::bounds::counter::OperationCounter;
use crate::bounds::guard;
use crate::bounds::limits::Bounds;
use crate::crossing;
use crate::crossing::evaluation::Evaluation;
use crate::crossing::origin::Origin;
use crate::crossing::stack::DropOnBigStack;
use crate::engine::compilation::{self, Script};
use crate::engine::run::{Entry, Form, ended_by, give_back, returned, run, within_bounds};
use crate::engine::variables::Variables;
use crate::host::failure::Failure;

thread_local! {
    /// Operations and peak bytes of the evaluation that ended last in this thread.
    static LAST_USE: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// Return the operations and the peak of allocated bytes of the evaluation that ended last in this thread, also if it failed.
#[pyfunction]
pub fn last_use() -> (u64, usize) {
    LAST_USE.get()
}

/// Reset the use of this thread's next evaluation, which may not even compile.
pub fn forget_use() {
    LAST_USE.set((0, 0));
}

/// An evaluation that Python asks for.
pub struct Request<'a> {
    pub form: Form,
    pub script: Script,
    pub entry: DropOnBigStack<Entry>,
    pub bounds: Bounds,
    pub variables: Variables<'a>,
    pub print: &'a Py<PyAny>,
    pub debug: &'a Py<PyAny>,
}

impl Request<'_> {
    /// Run it on this thread.
    ///
    /// `asked`: the engine as Python knows it, for pointers to functions.
    pub fn run(
        self,
        asked: &Bound<'_, PyAny>,
        engine: &Engine,
        counter: &OperationCounter,
        stack_size: usize,
    ) -> PyResult<Py<PyAny>> {
        let Request {
            form,
            script,
            mut entry,
            bounds,
            mut variables,
            print,
            debug,
        } = self;
        let py = asked.py();
        let origin = Origin {
            engine: asked.clone().unbind(),
            script: compilation::with_kept(py, stack_size, variables.lasting, script)?,
            constants: Arc::new(DropOnBigStack::new(variables.constants.take())),
        };
        variables.begin()?;
        let (held, mut used) = (variables.held, (0, 0));
        let ended = Evaluation::new(print, debug, &origin.constants).during(|| {
            origin.during(|| {
                let ended = crossing::rhai(py, stack_size, || {
                    guard::evaluate(counter, &bounds, held, || {
                        let ended = Failure::unless_stopped(|| {
                            run(engine, &origin.script, &mut entry, &mut variables.scope, form)
                        });
                        used = guard::used();
                        variables.free();
                        variables.added = guard::held() as isize - held as isize;
                        ended
                    })
                });
                variables.end();
                match ended {
                    Ok(evaluated) if evaluated.is_small() => returned(py, form, evaluated),
                    // A large value takes time, and more memory in Python than it did here.
                    ended => guard::evaluate(counter, &bounds, 0, || match ended {
                        Ok(evaluated) => within_bounds(py, returned(py, form, evaluated)),
                        Err(failure) => Err(ended_by(py, failure)),
                    }),
                }
            })
        });
        variables.came_from(origin);
        LAST_USE.set(used);
        give_back(py, used.1.saturating_sub(held));
        ended
    }
}
