//! Counts what the evaluations of a thread use, and checks it against their bounds.
//!
//! Rhai's own count leaves out what closures called by library functions do (`map`, `filter`, `sort`...), and a script
//! can catch its errors there. So each thread counts here, and a stop is final: once an evaluation has reached a bound,
//! every later check says so, and the check after the evaluation cannot be avoided.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rhai::Dynamic;

use crate::bounds::counter::OperationCounter;
use crate::bounds::grace::Grace;
use crate::bounds::limits::{Bounds, NamedLimits, Stop};

/// Operations between two checks of the clock: at first, and at most. Most operations take a hundredth of a microsecond; a
/// copy of an array of a million items takes many milliseconds. So a check also follows each slow operation and each
/// large block of memory. The more memory a script holds, the more often it is checked: the time of the slowest operation
/// is about proportional to that.
const FIRST_CHECK: u64 = 16;
const MOST_UNCHECKED: u64 = 1024;
const SMALL: isize = 256 * 1024;
const LARGE_BLOCK: usize = 16 * 1024;
const SLOW: Duration = Duration::from_millis(1);
/// Time between two checks for pending signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(8);

/// One evaluation or compilation: its bounds, and its use of them.
pub(super) struct Frame<'a> {
    outer: Option<&'a Frame<'a>>,
    bounds: &'a Bounds,
    counter: &'a OperationCounter,
    /// The counter's value before: a nested evaluation may share the engine.
    counted_before: u64,
    /// The thread's live bytes at the start without those that the script held then, and the most since.
    start: isize,
    peak: Cell<isize>,
    /// The most live bytes that are allowed.
    pub(super) ceiling: isize,
    /// Live bytes at which memory is checked next: twice as much as at the last check, or the ceiling.
    alarm: Cell<isize>,
    /// Operations up to the next check; the counter has how many of them are still to come.
    operations: Cell<u64>,
    /// The last operation that is allowed; operations of nested evaluations count.
    max_operations: u64,
    /// Operations from the last check to the next, unless the limit of operations comes first.
    quantum: Cell<u64>,
    checked: Cell<Option<Instant>>,
    pub(super) stop: Cell<Option<Stop>>,
    grace: Grace,
    deadline: Option<Instant>,
    pub(super) named: NamedLimits,
}

/// What a thread counts.
pub(super) struct Meter {
    /// Bytes that this thread has allocated and not freed, ever. Memory that another thread frees is never subtracted, and
    /// memory that this one frees for others is. So only differences within one evaluation mean something.
    live: Cell<isize>,
    /// The innermost evaluation; null if there is none.
    frame: Cell<*const Frame<'static>>,
    /// Tokens of source that were read, and items of values that were converted, ever.
    steps: Cell<u64>,
    signals_checked: Cell<Option<Instant>>,
}

thread_local! {
    // Constant and without a destructor: counting an allocation allocates nothing, and works while a thread ends.
    pub(super) static METER: Meter = const {
        Meter {
            live: Cell::new(0),
            frame: Cell::new(ptr::null()),
            steps: Cell::new(0),
            signals_checked: Cell::new(None),
        }
    };
}

/// Operations up to the next check.
fn next_check(operations: u64, quantum: u64, last: u64) -> u64 {
    quantum.min(last.saturating_sub(operations).saturating_add(1))
}

impl<'a> Frame<'a> {
    /// `max_memory`: bytes; zero: no limit.
    fn new(
        outer: Option<&'a Frame<'a>>,
        bounds: &'a Bounds,
        counter: &'a OperationCounter,
        max_memory: usize,
        start: isize,
    ) -> Self {
        let mut ceiling = match max_memory {
            0 => isize::MAX,
            bytes => start.saturating_add_unsigned(bytes),
        };
        let mut max_operations = match bounds.max_operations {
            0 => u64::MAX,
            last => last,
        };
        let mut deadline = bounds.deadline;
        let mut named = NamedLimits {
            max_memory: bounds.max_memory,
            timeout: bounds.timeout,
        };
        if let Some(outer) = outer {
            max_operations = max_operations.min(outer.max_operations.saturating_sub(outer.operations()));
            if outer.ceiling < ceiling {
                ceiling = outer.ceiling;
                named.max_memory = outer.named.max_memory;
            }
            let sooner = outer
                .deadline
                .filter(|sooner| deadline.is_none_or(|deadline| *sooner < deadline));
            if sooner.is_some() {
                deadline = sooner;
                named.timeout = outer.named.timeout;
            }
        }
        let unchecked = next_check(0, FIRST_CHECK, max_operations);
        let frame = Self {
            outer,
            bounds,
            counter,
            counted_before: counter.0.swap(unchecked, Ordering::Relaxed),
            start,
            peak: Cell::new(start),
            ceiling,
            alarm: Cell::new(ceiling.min(start.saturating_add(SMALL))),
            operations: Cell::new(unchecked),
            max_operations,
            quantum: Cell::new(FIRST_CHECK),
            checked: Cell::new(None),
            stop: Cell::new(None),
            grace: Grace::new(start),
            deadline,
            named,
        };
        if let Some(stop) = outer.and_then(|outer| outer.stop.get()) {
            frame.stop(stop);
        } else if frame.is_cancelled() {
            frame.stop(Stop::Cancelled);
        } else if bounds.is_late {
            frame.stop(Stop::Timeout);
        }
        frame
    }

    fn is_cancelled(&self) -> bool {
        self.bounds.is_cancelled() || self.outer.is_some_and(Frame::is_cancelled)
    }

    /// Operations so far.
    fn operations(&self) -> u64 {
        self.operations
            .get()
            .saturating_sub(self.counter.0.load(Ordering::Relaxed))
    }

    /// Check after `operations` more operations.
    fn check_after(&self, operations: u64) {
        self.operations.set(self.operations() + operations);
        self.counter.0.store(operations, Ordering::Relaxed);
    }

    /// Stop the script at its next operation, and at every one after that.
    pub(super) fn stop(&self, stop: Stop) {
        if self.stop.get().is_none() {
            self.stop.set(Some(stop));
        }
        self.check_after(1);
    }

    fn held(&self, live: isize) -> isize {
        live - self.start
    }

    /// Note that this many bytes are live, the most so far.
    fn rise(&self, live: isize) {
        self.peak.set(live);
        if live > self.alarm.get() {
            self.check_memory(live);
        }
    }

    #[cold]
    fn check_memory(&self, live: isize) {
        if live > self.ceiling {
            if self.stop.get().is_none() {
                self.grace.expect_check();
            }
            self.stop(Stop::Memory);
        } else {
            self.alarm
                .set(self.ceiling.min(live.saturating_add(self.held(live))));
            self.check_after(1);
        }
    }

    /// Check operations, cancellation and time; then say when to check next.
    fn check(&self, live: isize, now: Instant) {
        let operations = self.operations();
        let spent = self.checked.replace(Some(now)).map(|then| now - then);
        self.quantum.set(match spent {
            Some(spent) if spent > SLOW => 1,
            None => FIRST_CHECK,
            _ => (self.quantum.get() * 2).min(self.most_unchecked(live)),
        });
        if operations > self.max_operations {
            self.stop(Stop::Operations);
        } else if self.is_cancelled() {
            self.stop(Stop::Cancelled);
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop(Stop::Timeout);
        } else if self.stop.get().is_none() {
            self.check_after(next_check(operations, self.quantum.get(), self.max_operations));
        }
    }

    /// How many operations may pass before the next check, by the memory that the script holds.
    fn most_unchecked(&self, live: isize) -> u64 {
        let held = self.held(live).max(SMALL).unsigned_abs() as u64;
        (MOST_UNCHECKED * SMALL.unsigned_abs() as u64 / held).max(1)
    }
}

/// Ends an evaluation: the outer one is the thread's again, and counts the operations. Also when a panic passes.
struct Entered<'a>(&'a Frame<'a>);

impl<'a> Entered<'a> {
    fn new(meter: &Meter, frame: &'a Frame<'a>) -> Self {
        meter.frame.set(ptr::from_ref(frame).cast());
        Self(frame)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let frame = self.0;
        let spent = frame.operations();
        frame.counter.0.store(frame.counted_before, Ordering::Relaxed);
        let outer = frame.outer.map_or(ptr::null(), ptr::from_ref);
        METER.with(|meter| meter.frame.set(outer.cast()));
        if let Some(outer) = frame.outer {
            outer.operations.set(outer.operations.get().saturating_add(spent));
            if outer.max_operations < u64::MAX {
                outer.check_after(1);
            }
        }
    }
}

impl Meter {
    /// The innermost evaluation.
    #[inline(always)]
    pub(super) fn frame(&self) -> Option<&Frame<'_>> {
        // SAFETY: `within` puts a pointer to its frame here, and `Entered` takes it away before the frame ends. Evaluations
        // of a thread end in the reverse order of their starts, so that the frame lives as long as any code that can see
        // it here; and the thread's meter never leaves its thread.
        unsafe { self.frame.get().as_ref() }
    }

    /// Check everything but memory, unless the script has been stopped; return what stopped it.
    pub(super) fn check(&self) -> Option<Stop> {
        let frame = self.frame()?;
        if frame.stop.get().is_none() {
            let now = Instant::now();
            self.check_signals(frame.bounds, now);
            frame.check(self.live.get(), now);
        }
        frame.stop.get()
    }

    fn check_signals(&self, bounds: &Bounds, now: Instant) {
        match self.signals_checked.get() {
            Some(checked) if now - checked < SIGNALS_EVERY => {}
            None => self.signals_checked.set(Some(now)),
            Some(_) => {
                self.signals_checked.set(Some(now));
                (bounds.check_signals)();
            }
        }
    }

    /// Count a step; say whether to check.
    pub(super) fn count_step(&self) -> bool {
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        steps % MOST_UNCHECKED == 0
    }

    pub(super) fn live(&self) -> isize {
        self.live.get()
    }

    /// Bytes that were allocated since the start of the evaluation, and not freed.
    pub(super) fn held(&self) -> usize {
        let held = self.frame().map_or(0, |frame| frame.held(self.live.get()));
        usize::try_from(held).unwrap_or(0)
    }

    /// Operations of the innermost evaluation and of those around it.
    pub(super) fn operations(&self) -> u64 {
        let (mut operations, mut frame) = (0, self.frame());
        while let Some(each) = frame {
            operations += each.operations.get().saturating_sub(self.left(each));
            frame = each.outer;
        }
        operations
    }

    /// What an evaluation has in its counter, or had when one within it began to use the same.
    fn left(&self, frame: &Frame<'_>) -> u64 {
        let mut left = frame.counter.0.load(Ordering::Relaxed);
        let mut inner = self.frame();
        while let Some(each) = inner.filter(|each| !ptr::addr_eq(*each, frame)) {
            if ptr::eq(each.counter, frame.counter) {
                left = each.counted_before;
            }
            inner = each.outer;
        }
        left
    }

    /// Take back operations that were counted. Not of a stopped script: it could go on as long.
    pub(super) fn uncount(&self, operations: u64) {
        if let Some(frame) = self.frame().filter(|frame| frame.stop.get().is_none()) {
            let left = frame.counter.0.load(Ordering::Relaxed);
            frame
                .counter
                .0
                .store(left.saturating_add(operations), Ordering::Relaxed);
        }
    }

    /// Operations so far, and the most bytes that were allocated at once.
    pub(super) fn used(&self) -> (u64, usize) {
        self.frame().map_or((0, 0), |frame| {
            let peak = frame.held(frame.grace.peak(&frame.peak));
            (frame.operations(), usize::try_from(peak).unwrap_or(0))
        })
    }
}

/// Run within bounds, and `max_memory` bytes, of which `held` are taken; zero: no limit of memory.
pub(super) fn within<T>(
    counter: &OperationCounter,
    bounds: &Bounds,
    max_memory: usize,
    held: usize,
    body: impl FnOnce() -> T,
) -> T {
    METER.with(|meter| {
        let start = meter.live.get().saturating_sub_unsigned(held);
        let frame = Frame::new(meter.frame(), bounds, counter, max_memory, start);
        let _entered = Entered::new(meter, &frame);
        body()
    })
}

/// Count an allocation.
pub fn allocated(bytes: usize) {
    METER.with(|meter| {
        let live = meter.live.get().wrapping_add_unsigned(bytes);
        meter.live.set(live);
        if let Some(frame) = meter.frame() {
            if bytes > LARGE_BLOCK {
                frame.check_after(1);
            }
            if live > frame.peak.get() {
                frame.rise(live);
            }
        }
    });
}

/// Count memory that was freed.
pub fn freed(bytes: usize) {
    METER.with(|meter| meter.live.set(meter.live.get().wrapping_sub_unsigned(bytes)));
}

/// Check after an operation; whatever is returned ends the script.
#[cold]
pub(super) fn check() -> Option<Dynamic> {
    METER.with(|meter| {
        let frame = meter.frame()?;
        let live = meter.live.get();
        if frame.stop.get().is_none() {
            meter.check()?;
            frame.grace.begin_anew(live, &frame.peak);
            return None;
        }
        frame.check_after(1);
        let ends = frame.grace.ends(live, &frame.peak, frame.ceiling);
        ends.then_some(Dynamic::UNIT)
    })
}
