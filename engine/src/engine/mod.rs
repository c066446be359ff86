//! What is an engine made of, and how does it compile and run a script?

pub mod compiling;
pub mod folder;
pub mod formatting;
pub mod limits;
pub mod modules;
pub mod native_engine;
pub mod recipe;
pub mod run;
pub mod safe_library;
pub mod safe_strings;
pub mod scripts;
pub mod sorting;
pub mod token_limits;
pub mod variables;
