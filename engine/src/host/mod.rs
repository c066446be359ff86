//! How do scripts and Python functions call each other, and how does a failure become an exception?

pub mod failure;
pub mod functions;
pub mod pointer;
