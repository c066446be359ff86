//! What is an engine made of, and how does it compile and run a script?

pub mod args;
pub mod batch;
pub mod by_name;
pub mod compilation;
pub mod compiling;
pub mod constants;
pub mod folder;
pub mod formatting;
pub mod given;
pub mod limits;
pub mod lookup;
pub mod mentions;
pub mod modules;
pub mod names;
pub mod native_engine;
pub mod parsing;
pub mod recipe;
pub mod request;
pub mod run;
pub mod safe_library;
pub mod safe_strings;
pub mod scripts;
pub mod sorting;
pub mod survey;
pub mod token_limits;
pub mod variables;
