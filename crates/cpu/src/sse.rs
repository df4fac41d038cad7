//! SSE and SSE2, MXCSR, FXSAVE and XSAVE.

pub(crate) mod double;
