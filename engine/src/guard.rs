//! What bounds a running script: operations, time, memory, cancellation.
//!
//! Rhai's own count leaves out what closures called by natives do (`map`, `filter`, `sort`...), and its
//! errors can be caught there. So the state is ours, one a thread, and sticky: once a bound is reached,
//! every later look says so, and the look after the evaluation cannot be avoided.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhai::{Dynamic, EvalAltResult, Position};

use crate::alloc;

/// Operations between two looks at the clock: some 30 microseconds.
const CLOCK_EVERY: u64 = 1024;

/// Bounds of one evaluation.
#[derive(Clone, Default)]
pub struct Bounds {
    /// Zero: none.
    pub max_operations: u64,
    /// Bytes; zero: none.
    pub max_memory: usize,
    pub timeout: Option<Duration>,
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Which bound stopped the script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Operations,
    Memory,
    Timeout,
    Cancelled,
}

/// What an evaluation is stopped with; `Display` names the bound.
#[derive(Clone, Debug)]
pub struct Stopped {
    pub stop: Stop,
    pub bounds_text: String,
}

#[derive(Clone, Default)]
struct State {
    bounds: Bounds,
    deadline: Option<Instant>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
    static LAST_OPERATION: Cell<u64> = const { Cell::new(u64::MAX) };
    static CEILING: Cell<isize> = const { Cell::new(isize::MAX) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static STOP: Cell<Option<Stop>> = const { Cell::new(None) };
}

/// The bounds of one evaluation, from its start to its end; the enclosing evaluation's, if a host function
/// began this one, are back afterwards.
pub struct Guard {
    outer: State,
    operations: u64,
    last_operation: u64,
    ceiling: isize,
    peak: isize,
    start: isize,
    stop: Option<Stop>,
}

impl Guard {
    pub fn new(bounds: &Bounds) -> Self {
        let start = alloc::live();
        let ceiling = match bounds.max_memory {
            0 => isize::MAX,
            bytes => start.saturating_add_unsigned(bytes),
        };
        let last = match bounds.max_operations {
            0 => u64::MAX,
            operations => operations,
        };
        let state = State {
            bounds: bounds.clone(),
            deadline: bounds
                .timeout
                .and_then(|timeout| Instant::now().checked_add(timeout)),
        };
        let guard = Self {
            outer: STATE.replace(state),
            operations: OPERATIONS.replace(0),
            last_operation: LAST_OPERATION.replace(last),
            ceiling: CEILING.replace(ceiling),
            peak: PEAK.replace(start),
            start,
            stop: STOP.replace(None),
        };
        if bounds
            .cancel
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
        {
            STOP.set(Some(Stop::Cancelled));
        }
        guard
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        OPERATIONS.get()
    }

    /// Bytes that were allocated at once, at most, as seen before each operation and now.
    pub fn peak(&self) -> usize {
        usize::try_from(PEAK.get().max(alloc::live()) - self.start).unwrap_or(0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        STATE.replace(std::mem::take(&mut self.outer));
        OPERATIONS.set(self.operations);
        LAST_OPERATION.set(self.last_operation);
        CEILING.set(self.ceiling);
        PEAK.set(self.peak);
        STOP.set(self.stop);
    }
}

/// Count one operation; called by the engine before each.
pub fn operation() -> Option<Dynamic> {
    let count = OPERATIONS.get() + 1;
    OPERATIONS.set(count);
    if STOP.get().is_none() {
        if count > LAST_OPERATION.get() {
            STOP.set(Some(Stop::Operations));
        } else if count % CLOCK_EVERY == 0 {
            look();
        }
        let live = alloc::live();
        if live > PEAK.get() {
            PEAK.set(live);
            if live > CEILING.get() && STOP.get().is_none() {
                STOP.set(Some(Stop::Memory));
            }
        }
    }
    STOP.get().map(|_| Dynamic::UNIT)
}

/// Look at the clock and at the cancel flag.
fn look() {
    STATE.with_borrow(|state| {
        if state
            .bounds
            .cancel
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
        {
            STOP.set(Some(Stop::Cancelled));
        } else if state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            STOP.set(Some(Stop::Timeout));
        }
    });
}

/// Look at everything; what stopped the script, if anything did.
pub fn stopped() -> Option<Stop> {
    if STOP.get().is_none() {
        look();
    }
    STOP.get()
}

/// Say whether a native may allocate this much at once; if not, the script is stopped.
pub fn allow(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    let after = alloc::live().checked_add_unsigned(bytes);
    if after.is_none_or(|after| after > CEILING.get()) {
        STOP.set(Some(Stop::Memory));
    }
    // Without a bound, still nothing that no machine has: the allocator would end the process.
    if bytes > isize::MAX as usize / 4 {
        STOP.set(Some(Stop::Memory));
    }
    proceed()
}

/// Return an error if the script has been stopped.
pub fn proceed() -> Result<(), Box<EvalAltResult>> {
    match STOP.get() {
        None => Ok(()),
        Some(_) => Err(Box::new(EvalAltResult::ErrorTerminated(
            Dynamic::UNIT,
            Position::NONE,
        ))),
    }
}

/// Bytes that may still be allocated.
pub fn remaining() -> usize {
    usize::try_from(CEILING.get().saturating_sub(alloc::live())).unwrap_or(0)
}

/// Wait, but not past the deadline or a cancellation.
pub fn sleep(seconds: f64) -> Result<(), Box<EvalAltResult>> {
    const SLICE: Duration = Duration::from_millis(5);
    if seconds.is_nan() || seconds <= 0.0 {
        return Ok(());
    }
    // Beyond what a clock can hold is for ever, as far as a script is concerned.
    let end = Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|wait| Instant::now().checked_add(wait));
    loop {
        if stopped().is_some() {
            return proceed();
        }
        let left = end.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

impl Stopped {
    pub fn new(stop: Stop, bounds: &Bounds) -> Self {
        let bounds_text = match stop {
            Stop::Operations => "Too many operations".to_owned(),
            Stop::Memory if bounds.max_memory == 0 => {
                "Script terminated: it asked for more memory than there can be".to_owned()
            }
            Stop::Memory => format!(
                "Script terminated: memory limit of {} MiB exceeded",
                bounds.max_memory as f64 / (1024.0 * 1024.0)
            ),
            Stop::Timeout => format!(
                "Script terminated: time limit of {} s exceeded",
                bounds.timeout.unwrap_or_default().as_secs_f64()
            ),
            Stop::Cancelled => "Script terminated: cancelled".to_owned(),
        };
        Self { stop, bounds_text }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.bounds_text)
    }
}

/// Stop the script that this thread runs.
pub fn cancel() {
    if STOP.get().is_none() {
        STOP.set(Some(Stop::Cancelled));
    }
}
