//! What things cost: cost tables per processor model, each number with its source.
