//! Scenario files: schema, loading with spans, running, expectations.

pub mod diagnostic;
pub mod file;
pub mod json;
pub mod quantity;
pub mod schema;
