//! job-runtime.
