//! How much may a script use, and what stops it: operations, time, memory, cancellation?

pub mod alloc;
pub mod cancel;
pub mod counter;
pub mod grace;
pub mod guard;
pub mod limits;
pub mod meter;
pub mod text;
