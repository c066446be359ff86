//! Rhai for Node.

use napi::{Error, Result};
use napi_derive::napi;

/// Run a script, and return its value as text.
///
/// # Errors
/// The script's own.
#[napi]
pub fn run(script: String) -> Result<String> {
    rivals::run(&script).map_err(Error::from_reason)
}
