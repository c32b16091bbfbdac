//! The fused edit program: adjacent editing processors compile into one walk over the bytes.

use crate::pdata::Batch;

/// What one editing processor contributes to the program.
#[derive(Debug, Clone)]
pub struct Edit;

/// Adjacent edits of one signal, fused.
pub struct Program;

/// What an application of a program met.
pub struct Applied {
    /// Items left as they were because their bytes are not a message.
    pub malformed: usize,
}

impl Program {
    /// Applies the program to a batch.
    pub fn apply(&self, _batch: &mut Batch) -> Applied {
        Applied { malformed: 0 }
    }
}
