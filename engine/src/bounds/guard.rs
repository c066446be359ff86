//! Runs an evaluation within its bounds, and answers what library and host functions ask about them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rhai::{Dynamic, EvalAltResult, Position};

use crate::bounds::alloc;
use crate::bounds::counter::OperationCounter;
use crate::bounds::limits::{Bounds, NamedLimits, Stop};
use crate::bounds::meter::{self, METER};

/// What Rhai's functions return.
pub type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// Bytes that no script gets at once, even without a memory limit.
const MOST_AT_ONCE: usize = 1 << 36;

/// How many times `max_memory` compiling may take: five megabytes of dense source need ten times the memory that a script
/// has by default.
const COMPILING: usize = 8;

thread_local! {
    /// The module whose file was too large, and its bytes, if that stopped the script.
    static TOO_LARGE: RefCell<Option<(String, u64)>> = const { RefCell::new(None) };
}

/// Evaluate within bounds.
///
/// `held`: bytes that the script holds from the start; they count as its memory.
pub fn evaluate<T>(counter: &OperationCounter, bounds: &Bounds, held: usize, body: impl FnOnce() -> T) -> T {
    within(counter, bounds, bounds.max_memory, held, body)
}

/// Compile within bounds.
pub fn compile<T>(counter: &OperationCounter, bounds: &Bounds, body: impl FnOnce() -> T) -> T {
    within(
        counter,
        bounds,
        bounds.max_memory.saturating_mul(COMPILING),
        0,
        body,
    )
}

fn within<T>(
    counter: &OperationCounter,
    bounds: &Bounds,
    max_memory: usize,
    held: usize,
    body: impl FnOnce() -> T,
) -> T {
    alloc::keep_blocks();
    TOO_LARGE.take();
    meter::within(counter, bounds, max_memory, held, body)
}

/// Check everything, and return what stopped the script.
pub fn stopped() -> Option<Stop> {
    METER.with(meter::Meter::check)
}

/// Return the cause that has stopped the script, without a check.
pub fn stop_so_far() -> Option<Stop> {
    METER.with(|meter| meter.frame()?.stop.get())
}

/// Count a step of a long work, a token of source or an item of a value, and check now and then; return whether the
/// script has been stopped.
pub fn step() -> bool {
    if METER.with(meter::Meter::count_step) {
        stopped().is_some()
    } else {
        stop_so_far().is_some()
    }
}

/// Return operations so far, and the most bytes that were allocated at once.
pub fn used() -> (u64, usize) {
    METER.with(meter::Meter::used)
}

/// Return the operations of all evaluations that this thread is in.
pub fn operations() -> u64 {
    METER.with(meter::Meter::operations)
}

/// Subtract operations from those of the script.
pub fn uncount(operations: u64) {
    METER.with(|meter| meter.uncount(operations));
}

/// Describe what stopped the script.
pub fn describe(stop: Stop) -> String {
    let named = METER.with(|meter| meter.frame().map(|frame| frame.named));
    let NamedLimits { max_memory, timeout } = named.unwrap_or_default();
    match stop {
        Stop::Operations => "Too many operations".to_owned(),
        Stop::Memory if max_memory == 0 => {
            "Script terminated: it asked for more memory than there can be".to_owned()
        }
        Stop::Memory => {
            let module = TOO_LARGE
                .take()
                .map(|(path, bytes)| format!(" by module '{path}' of {bytes} bytes"))
                .unwrap_or_default();
            format!(
                "Script terminated: memory limit of {} MiB exceeded{module}",
                max_memory as f64 / (1024.0 * 1024.0)
            )
        }
        Stop::Timeout => format!(
            "Script terminated: time limit of {} s exceeded",
            timeout.unwrap_or_default().as_secs_f64()
        ),
        Stop::Cancelled => "Script terminated: cancelled".to_owned(),
    }
}

/// Stop the script that this thread runs.
pub fn cancel() {
    stop(Stop::Cancelled);
}

fn stop(why: Stop) {
    METER.with(|meter| {
        if let Some(frame) = meter.frame() {
            frame.stop(why);
        }
    });
}

/// Check whether a library function may allocate this much at once; if not, stop the script.
pub fn allow(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    // Also without a memory limit there are sizes that no machine has: the allocator would end the process.
    if bytes > MOST_AT_ONCE || bytes > remaining() {
        stop(Stop::Memory);
    }
    proceed()
}

/// Count memory that the host keeps for the script as the script's, until the evaluation ends; stop the script if there is
/// no more room.
pub fn charge(bytes: usize) -> Fallible<()> {
    step();
    allow(bytes)?;
    meter::allocated(bytes);
    Ok(())
}

/// Check whether the file of a module may be read; if not, stop the script.
pub fn allow_module(path: &str, bytes: u64) -> Result<(), Box<EvalAltResult>> {
    proceed()?;
    allow(usize::try_from(bytes).unwrap_or(usize::MAX)).inspect_err(|_| {
        TOO_LARGE.replace(Some((path.to_owned(), bytes)));
    })
}

/// Return an error if the script has been stopped.
pub fn proceed() -> Result<(), Box<EvalAltResult>> {
    match stop_so_far() {
        None => Ok(()),
        Some(_) => Err(terminated()),
    }
}

/// Stop the script because it needs more memory than there is left; return the error that ends it.
pub fn out_of_memory() -> Box<EvalAltResult> {
    stop(Stop::Memory);
    terminated()
}

fn terminated() -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE))
}

/// Return the bytes that were allocated since the start of the evaluation or compilation, and not freed.
pub fn held() -> usize {
    METER.with(meter::Meter::held)
}

/// Return the bytes that the script may still allocate.
pub fn remaining() -> usize {
    METER.with(|meter| {
        let ceiling = meter.frame().map_or(isize::MAX, |frame| frame.ceiling);
        usize::try_from(ceiling.saturating_sub(meter.live())).unwrap_or(0)
    })
}

/// Wait, but not past the deadline or a cancellation.
pub fn sleep(seconds: f64) -> Result<(), Box<EvalAltResult>> {
    const SLICE: Duration = Duration::from_millis(5);
    if seconds.is_nan() || seconds <= 0.0 {
        return Ok(());
    }
    // Later than a clock can hold is for ever, as far as a script can tell.
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
