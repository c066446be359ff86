//! How are values converted between Python and scripts?

mod copying;
pub mod from_python;
pub mod functions;
pub mod gc;
pub mod iteration;
pub mod known;
pub mod object;
mod placing;
pub mod refused;
pub mod scope;
pub mod size;
pub mod to_json;
pub mod to_python;
