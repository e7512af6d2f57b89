//! The configuration: puts the sections together that the rooms define, loads them, and reports everything that is
//! wrong at once.

mod check;
mod environment;
mod explain;
#[cfg(fuzzing)]
pub mod fuzz;
mod hint;
mod load;
mod memory;
mod reach;
mod reading;
mod sections;
mod sources;

pub(crate) use self::check::Loaded;
pub(crate) use self::environment::Environment;
pub(crate) use self::explain::Remarks;
pub(crate) use self::hint::hint;
pub(crate) use self::load::{Source, load, look};
pub(crate) use self::reach::{Reach, admin_address, authorization, reach, schema};
pub(crate) use self::reading::Diagnostic;
pub(crate) use self::sections::Config;
