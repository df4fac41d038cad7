//! What the frequent instructions mean: each once, generic over who interprets it.
//!
//! Instructions that are rare or complicated (far transfers, system instructions, strings) are plain functions, see [`crate::system`].

pub(crate) mod arithmetic;
pub(crate) mod bits;
pub(crate) mod branch;
pub(crate) mod double;
pub(crate) mod moves;
pub(crate) mod multiply;
pub(crate) mod place;
pub(crate) mod shift;
pub(crate) mod stack;
pub(crate) mod status;
