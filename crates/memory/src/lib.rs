//! Physical memory of a simulated machine: sparse copy-on-write pages and a dirty log.
