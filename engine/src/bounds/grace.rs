//! Which checks let a stopped script go on.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long checks may let a stopped script go on.
const GRACE: Duration = Duration::from_millis(10);

/// The memory of a stopped script at its checks, and the time since one let it go on.
pub(super) struct Grace {
    /// Live bytes at the last check, and the most up to it. At a check, the frame's peak becomes `isize::MIN`, so that the
    /// next allocation sets it.
    last_live: Cell<isize>,
    peak_before: Cell<isize>,
    /// When a check first let the script go on.
    passed: Cell<Option<Instant>>,
}

impl Grace {
    /// `start`: live bytes at the start of the evaluation.
    pub fn new(start: isize) -> Self {
        Self {
            last_live: Cell::new(isize::MAX),
            peak_before: Cell::new(start),
            passed: Cell::new(None),
        }
    }

    /// Note that the script has been stopped because of its memory, and not by a check.
    pub fn expect_check(&self) {
        self.last_live.set(isize::MIN);
    }

    /// Whether a check ends the script. `peak`: the frame's; `ceiling`: the most live bytes that are allowed.
    ///
    /// Where Rhai interpolates a copy of a value, the next check is that of `to_string`. If this check ended the script,
    /// Rhai would write the value's text itself, without bounds. So it must pass; `to_string` then stops at once. Nothing
    /// distinguishes it from other checks. But it is the first check after the stop, or the copy has taken memory since the
    /// check before. So every such check passes. It does so for `GRACE` at most, since a library function that compares
    /// items takes memory between all its checks, and only once above the ceiling.
    pub fn ends(&self, live: isize, peak: &Cell<isize>, ceiling: isize) -> bool {
        let before = self.last_live.get();
        let took_memory = peak.get() != isize::MIN;
        self.begin_anew(live, peak);
        !took_memory || before >= ceiling || self.passed.get().is_some_and(|first| first.elapsed() > GRACE)
    }

    /// Note a check.
    pub fn begin_anew(&self, live: isize, peak: &Cell<isize>) {
        self.passed
            .set(self.passed.get().or_else(|| Some(Instant::now())));
        self.last_live.set(live);
        self.peak_before
            .set(self.peak_before.get().max(peak.replace(isize::MIN)));
    }

    /// The most live bytes of the evaluation.
    pub fn peak(&self, peak: &Cell<isize>) -> isize {
        peak.get().max(self.peak_before.get())
    }
}
