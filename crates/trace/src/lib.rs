//! The vocabulary of events and its writers.
