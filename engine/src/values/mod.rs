//! How are values converted between Python and scripts?

pub mod from_python;
pub mod gc;
pub mod iteration;
pub mod known;
pub mod object;
mod placing;
mod refused;
pub mod scope;
pub mod size;
pub mod to_json;
pub mod to_python;
