//! The bounds of one evaluation, and what stops it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bounds::cancel::Flag;

/// The bounds of one evaluation. A nested evaluation, which a host function starts, also has those of the outer one.
pub struct Bounds {
    /// Zero: none.
    pub max_operations: u64,
    /// Bytes; zero: none.
    pub max_memory: usize,
    pub timeout: Option<Duration>,
    /// The end of `timeout`, unless that is further ahead than a clock can hold.
    pub deadline: Option<Instant>,
    /// Whether the deadline passed before the evaluation could begin.
    pub is_late: bool,
    pub cancel: Option<Arc<Flag>>,
    /// Lets Python handle pending signals; calls `guard::cancel` if the script must not go on.
    pub check_signals: fn(),
}

impl Bounds {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|flag| flag.is_set())
    }
}

/// The limits to name in messages: the outer evaluation's where those are tighter.
#[derive(Clone, Copy, Default)]
pub(super) struct NamedLimits {
    pub(super) max_memory: usize,
    pub(super) timeout: Option<Duration>,
}

/// The bound that stopped a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Operations,
    Memory,
    Timeout,
    Cancelled,
}
