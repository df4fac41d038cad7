//! Scenario files: schema, loading with spans, running, expectations.
