//! A store in a file: crash-safe, for one process.

mod backend;
mod batch;
mod look;
mod opened;
mod tables;
mod writer;

pub(crate) use self::batch::Starting;
pub(crate) use self::look::look;
pub(crate) use self::opened::CannotOpen;
pub(super) use self::opened::open;
pub(super) use self::writer::File;
