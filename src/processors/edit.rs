//! The fused edit program: adjacent editing processors compile into one walk over the bytes.

/// What one editing processor contributes to the program.
#[derive(Debug, Clone)]
pub struct Edit;
