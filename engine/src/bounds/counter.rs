//! Counts the operations of an engine.

use std::sync::atomic::{AtomicU64, Ordering};

use rhai::Dynamic;

use crate::bounds::meter::check;

/// Counts down an engine's operations to the next check. It belongs to the engine, so that an operation needs no look-up
/// of a thread-local value.
#[derive(Default)]
pub struct OperationCounter(pub(super) AtomicU64);

impl OperationCounter {
    /// Count one operation; the engine calls it before each.
    pub fn operation(&self) -> Option<Dynamic> {
        let left = self.0.load(Ordering::Relaxed).wrapping_sub(1);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { check() } else { None }
    }
}
