//! What bounds a running script: operations, time, memory, cancellation.
//!
//! Rhai's own count leaves out what closures called by natives do (`map`, `filter`, `sort`...), and its
//! errors can be caught there. So the state is ours, one a thread, and sticky: once a bound is reached,
//! every later look says so, and the look after the evaluation cannot be avoided.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rhai::{Dynamic, EvalAltResult, Position};

use crate::{alloc, host};

/// Operations between two looks at the clock: at first, and at most. Most take a hundredth of a microsecond; a copy of
/// an array of a million items takes many milliseconds. So there is a look at once after what took long or a large block
/// of memory, and the more memory the script holds, the more often: the slowest operation is about proportional to that.
const FIRST_LOOK: u64 = 16;
const LOOK_EVERY: u64 = 1024;
const SMALL: isize = 256 * 1024;
const LARGE_BLOCK: usize = 16 * 1024;
const SLOW: Duration = Duration::from_millis(1);
/// Time between two looks whether a signal wants to be handled.
const SIGNALS_EVERY: Duration = Duration::from_millis(8);

/// Bytes that no script gets at once, also without a bound.
const MOST_AT_ONCE: usize = 1 << 36;

/// How many times `max_memory` a script may take while it compiles: five megabytes of dense source need ten times the
/// memory that a script has by default.
const COMPILING: usize = 8;

/// Bounds of one evaluation. One that a host function begins inside of another is bounded by that one's as well.
pub struct Bounds {
    /// Zero: none.
    pub max_operations: u64,
    /// Bytes; zero: none.
    pub max_memory: usize,
    pub timeout: Option<Duration>,
    /// When that is over, if a clock can hold it.
    pub deadline: Option<Instant>,
    pub cancel: Option<Arc<AtomicBool>>,
    /// Those of the enclosing evaluation; the guard's to set.
    pub enclosing: AtomicPtr<Bounds>,
}

/// The limits that hold, in the words in which they were given: an enclosing evaluation's, if they come first.
#[derive(Clone, Copy)]
struct Told {
    max_memory: usize,
    timeout: Option<Duration>,
}

/// Which bound stopped the script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Operations,
    Memory,
    Timeout,
    Cancelled,
}

/// Counts down an engine's operations to the next look at its bounds; the engine's, so that an operation costs no
/// look-up of what is the thread's.
#[derive(Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Count one operation; called by the engine before each.
    pub fn operation(&self) -> Option<Dynamic> {
        let left = self.0.load(Ordering::Relaxed).wrapping_sub(1);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { look() } else { None }
    }
}

/// What this thread's evaluation has done, and what bounds it.
struct Meter {
    /// Bytes allocated and not freed by this thread, ever. What another thread frees is never subtracted, and what
    /// this one frees for others is: only differences within one evaluation mean something.
    live: Cell<isize>,
    start: Cell<isize>,
    peak: Cell<isize>,
    ceiling: Cell<isize>,
    /// What has to be looked at when it is allocated: twice as much as at the last time, or the ceiling.
    alarm: Cell<isize>,
    /// Operations at the next look, and how many of them are still to come.
    operations: Cell<u64>,
    pulse: Cell<*const Pulse>,
    /// The last operation that is allowed; an enclosing evaluation counts those of what it began, too.
    max_operations: Cell<u64>,
    /// How many operations there were from the last look to the next, unless the limit of operations came first.
    quantum: Cell<u64>,
    /// Tokens of source that were read, ever.
    tokens: Cell<u64>,
    looked: Cell<Option<Instant>>,
    heeded: Cell<Option<Instant>>,
    stop: Cell<Option<Stop>>,
    deadline: Cell<Option<Instant>>,
    told: Cell<Told>,
    bounds: Cell<*const Bounds>,
}

thread_local! {
    // Constant and without a destructor: counting an allocation allocates nothing and works while a thread ends.
    static METER: Meter = const {
        Meter {
            live: Cell::new(0),
            start: Cell::new(0),
            peak: Cell::new(isize::MAX),
            ceiling: Cell::new(isize::MAX),
            alarm: Cell::new(isize::MAX),
            operations: Cell::new(0),
            pulse: Cell::new(ptr::null()),
            max_operations: Cell::new(u64::MAX),
            quantum: Cell::new(FIRST_LOOK),
            tokens: Cell::new(0),
            looked: Cell::new(None),
            heeded: Cell::new(None),
            stop: Cell::new(None),
            deadline: Cell::new(None),
            told: Cell::new(Told { max_memory: 0, timeout: None }),
            bounds: Cell::new(ptr::null()),
        }
    };
}

/// The bounds of one evaluation, from its start to its end; the enclosing evaluation's, if a host function
/// began this one, are back afterwards.
pub struct Guard<'a> {
    outer: Outer,
    guarded: PhantomData<(&'a Pulse, &'a Bounds)>,
}

struct Outer {
    start: isize,
    peak: isize,
    ceiling: isize,
    alarm: isize,
    operations: u64,
    max_operations: u64,
    left: u64,
    pulse: *const Pulse,
    stop: Option<Stop>,
    deadline: Option<Instant>,
    told: Told,
    bounds: *const Bounds,
}

impl<'a> Guard<'a> {
    /// Guard an evaluation.
    pub fn new(pulse: &'a Pulse, bounds: &'a Bounds) -> Self {
        Self::with_memory(pulse, bounds, bounds.max_memory)
    }

    /// Guard the compilation of a script.
    pub fn compiling(pulse: &'a Pulse, bounds: &'a Bounds) -> Self {
        Self::with_memory(pulse, bounds, bounds.max_memory.saturating_mul(COMPILING))
    }

    fn with_memory(pulse: &'a Pulse, bounds: &'a Bounds, memory: usize) -> Self {
        alloc::keep_blocks();
        METER.with(|meter| {
            let start = meter.live.get();
            let mut ceiling = match memory {
                0 => isize::MAX,
                bytes => start.saturating_add_unsigned(bytes),
            };
            let mut deadline = bounds.deadline;
            let (mut told, mut stop) = (bounds.told(), None);
            let mut max_operations = match bounds.max_operations {
                0 => u64::MAX,
                last => last,
            };
            if meter.bounds().is_some() {
                bounds
                    .enclosing
                    .store(meter.bounds.get().cast_mut(), Ordering::Relaxed);
                stop = meter.stop.get();
                let left = meter.max_operations.get().saturating_sub(meter.operations());
                max_operations = max_operations.min(left);
                if meter.ceiling.get() < ceiling {
                    ceiling = meter.ceiling.get();
                    told.max_memory = meter.told.get().max_memory;
                }
                let sooner = meter
                    .deadline
                    .get()
                    .filter(|sooner| deadline.is_none_or(|deadline| *sooner < deadline));
                if sooner.is_some() {
                    deadline = sooner;
                    told.timeout = meter.told.get().timeout;
                }
            }
            meter.quantum.set(FIRST_LOOK);
            meter.looked.set(None);
            let left = next_look(0, FIRST_LOOK, max_operations);
            let outer = Outer {
                start: meter.start.replace(start),
                peak: meter.peak.replace(start),
                ceiling: meter.ceiling.replace(ceiling),
                alarm: meter.alarm.replace(ceiling.min(start.saturating_add(SMALL))),
                operations: meter.operations.replace(left),
                max_operations: meter.max_operations.replace(max_operations),
                left: pulse.0.swap(left, Ordering::Relaxed),
                pulse: meter.pulse.replace(pulse),
                stop: meter.stop.replace(None),
                deadline: meter.deadline.replace(deadline),
                told: meter.told.replace(told),
                bounds: meter.bounds.replace(bounds),
            };
            if bounds.is_cancelled() {
                stop = Some(Stop::Cancelled);
            }
            if let Some(stop) = stop {
                meter.stop(stop);
            }
            Self {
                outer,
                guarded: PhantomData,
            }
        })
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        METER.with(|meter| {
            let spent = meter.operations();
            if let Some(pulse) = meter.pulse() {
                pulse.0.store(self.outer.left, Ordering::Relaxed);
            }
            meter.start.set(self.outer.start);
            meter.peak.set(self.outer.peak);
            meter.ceiling.set(self.outer.ceiling);
            meter.alarm.set(self.outer.alarm);
            meter.operations.set(self.outer.operations);
            meter.max_operations.set(self.outer.max_operations);
            meter.pulse.set(self.outer.pulse);
            meter.stop.set(self.outer.stop);
            meter.deadline.set(self.outer.deadline);
            meter.told.set(self.outer.told);
            meter.bounds.set(self.outer.bounds);
            if meter.bounds().is_some() {
                meter.operations.set(self.outer.operations.saturating_add(spent));
                if meter.max_operations.get() < u64::MAX {
                    meter.look_after(1);
                }
            }
        });
    }
}

impl Bounds {
    fn told(&self) -> Told {
        Told {
            max_memory: self.max_memory,
            timeout: self.timeout,
        }
    }

    fn is_cancelled(&self) -> bool {
        let own = self
            .cancel
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed));
        // SAFETY: the enclosing evaluation goes on until this one has ended.
        let enclosing = unsafe { self.enclosing.load(Ordering::Relaxed).as_ref() };
        own || enclosing.is_some_and(Self::is_cancelled)
    }
}

/// After how many more operations to look.
fn next_look(operations: u64, quantum: u64, last: u64) -> u64 {
    quantum.min(last.saturating_sub(operations).saturating_add(1))
}

impl Meter {
    fn bounds(&self) -> Option<&Bounds> {
        // SAFETY: the guard has put it here and takes it away, and what it borrowed outlives it.
        unsafe { self.bounds.get().as_ref() }
    }

    fn pulse(&self) -> Option<&Pulse> {
        // SAFETY: likewise.
        unsafe { self.pulse.get().as_ref() }
    }

    fn operations(&self) -> u64 {
        let left = self.pulse().map_or(0, |pulse| pulse.0.load(Ordering::Relaxed));
        self.operations.get().saturating_sub(left)
    }

    fn look_after(&self, operations: u64) {
        self.operations.set(self.operations() + operations);
        if let Some(pulse) = self.pulse() {
            pulse.0.store(operations, Ordering::Relaxed);
        }
    }

    /// Stop the script at its next operation, and at every one after that.
    fn stop(&self, stop: Stop) {
        if self.stop.get().is_none() {
            self.stop.set(Some(stop));
        }
        self.look_after(1);
    }

    /// How many operations there may be before the next look, by the memory that is held.
    fn most_operations(&self) -> u64 {
        let held = (self.live.get() - self.start.get()).max(SMALL);
        (LOOK_EVERY * SMALL.unsigned_abs() as u64 / held.unsigned_abs() as u64).max(1)
    }

    #[cold]
    fn alarmed(&self, live: isize) {
        if live > self.ceiling.get() {
            self.stop(Stop::Memory);
        } else {
            let held = live - self.start.get();
            self.alarm.set(self.ceiling.get().min(live.saturating_add(held)));
            self.look_after(1);
        }
    }

    /// Look at everything but memory.
    fn look(&self) {
        let Some(bounds) = self.bounds() else { return };
        let (operations, now) = (self.operations(), Instant::now());
        let spent = self.looked.replace(Some(now)).map(|then| now - then);
        self.quantum.set(match spent {
            Some(spent) if spent > SLOW => 1,
            None => FIRST_LOOK,
            _ => (self.quantum.get() * 2).min(self.most_operations()),
        });
        if now - self.heeded.get().unwrap_or(now) >= SIGNALS_EVERY {
            self.heeded.set(Some(now));
            host::heed_signals();
        } else if self.heeded.get().is_none() {
            self.heeded.set(Some(now));
        }
        if operations > self.max_operations.get() {
            self.stop(Stop::Operations);
        } else if bounds.is_cancelled() {
            self.stop(Stop::Cancelled);
        } else if self.deadline.get().is_some_and(|deadline| now >= deadline) {
            self.stop(Stop::Timeout);
        } else if self.stop.get().is_none() {
            self.look_after(next_look(
                operations,
                self.quantum.get(),
                self.max_operations.get(),
            ));
        }
    }
}

/// Count an allocation.
pub fn allocated(bytes: usize) {
    METER.with(|meter| {
        let live = meter.live.get().wrapping_add_unsigned(bytes);
        meter.live.set(live);
        if bytes > LARGE_BLOCK {
            meter.look_after(1);
        }
        if live > meter.peak.get() {
            meter.peak.set(live);
            if live > meter.alarm.get() {
                meter.alarmed(live);
            }
        }
    });
}

/// Count memory that was freed.
pub fn freed(bytes: usize) {
    METER.with(|meter| meter.live.set(meter.live.get().wrapping_sub_unsigned(bytes)));
}

#[cold]
fn look() -> Option<Dynamic> {
    METER.with(|meter| {
        if meter.stop.get().is_some() {
            meter.look_after(1);
        } else {
            meter.look();
        }
        meter.stop.get().map(|_| Dynamic::UNIT)
    })
}

/// Look at everything; what stopped the script, if anything did.
pub fn stopped() -> Option<Stop> {
    METER.with(|meter| {
        if meter.stop.get().is_none() {
            meter.look();
        }
        meter.stop.get()
    })
}

/// Count a token of source that is read, and look now and then; whether the script has been stopped.
pub fn token() -> bool {
    METER.with(|meter| {
        let tokens = meter.tokens.get().wrapping_add(1);
        meter.tokens.set(tokens);
        if tokens % LOOK_EVERY == 0 && meter.stop.get().is_none() {
            meter.look();
        }
        meter.stop.get().is_some()
    })
}

/// Operations so far, and the most bytes that were allocated at once.
pub fn used() -> (u64, usize) {
    METER.with(|meter| {
        let peak = meter.peak.get() - meter.start.get();
        (meter.operations(), usize::try_from(peak).unwrap_or(0))
    })
}

/// Say in words what the script was stopped by.
pub fn describe(stop: Stop) -> String {
    let Told { max_memory, timeout } = METER.with(|meter| meter.told.get());
    match stop {
        Stop::Operations => "Too many operations".to_owned(),
        Stop::Memory if max_memory == 0 => {
            "Script terminated: it asked for more memory than there can be".to_owned()
        }
        Stop::Memory => format!(
            "Script terminated: memory limit of {} MiB exceeded",
            max_memory as f64 / (1024.0 * 1024.0)
        ),
        Stop::Timeout => format!(
            "Script terminated: time limit of {} s exceeded",
            timeout.unwrap_or_default().as_secs_f64()
        ),
        Stop::Cancelled => "Script terminated: cancelled".to_owned(),
    }
}

/// Stop the script that this thread runs.
pub fn cancel() {
    METER.with(|meter| meter.stop(Stop::Cancelled));
}

/// Say whether a native may allocate this much at once; if not, the script is stopped.
pub fn allow(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    METER.with(|meter| {
        let after = meter.live.get().checked_add_unsigned(bytes);
        // Without a bound, still nothing that no machine has: the allocator would end the process.
        if after.is_none_or(|after| after > meter.ceiling.get()) || bytes > MOST_AT_ONCE {
            meter.stop(Stop::Memory);
        }
    });
    proceed()
}

/// Return an error if the script has been stopped.
pub fn proceed() -> Result<(), Box<EvalAltResult>> {
    match METER.with(|meter| meter.stop.get()) {
        None => Ok(()),
        Some(_) => Err(terminated()),
    }
}

/// Stop the script, which needs more memory than there is left; the error that ends it.
pub fn out_of_memory() -> Box<EvalAltResult> {
    METER.with(|meter| meter.stop(Stop::Memory));
    terminated()
}

fn terminated() -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE))
}

/// Bytes that were allocated since the evaluation or compilation began, and not freed.
pub fn held() -> usize {
    METER.with(|meter| usize::try_from(meter.live.get() - meter.start.get()).unwrap_or(0))
}

/// Bytes that may still be allocated.
pub fn remaining() -> usize {
    METER.with(|meter| usize::try_from(meter.ceiling.get().saturating_sub(meter.live.get())).unwrap_or(0))
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
