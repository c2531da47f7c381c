//! The front door: who may ask, who answers, and what is kept of it.
//!
//! Admits signed requests, relays them to attached jobs, stores every receipt
//! before its client sees it. Never links a model. Start at [`Gateway::build`];
//! the way of one request is in `front_door`.

#![forbid(unsafe_code)]

mod admin;
mod admission;
mod api;
mod clock;
mod config;
mod data_dir;
mod engine;
#[cfg(test)]
mod fixtures;
mod front_door;
mod gateway;
mod gateway_key;
mod jobs;
mod metrics;
mod problem;
mod relay;
mod store;
mod tasks;

pub use config::{ConfigFault, ConfigFaults, GatewayConfig, GatewayLimits};
pub use data_dir::{DataDir, DataDirError};
pub use engine::EngineError;
pub use gateway::{BuildError, Gateway, JobDesk, Running};
pub use gateway_key::GatewayKeyError;
pub use jobs::{AttachError, AttachedJob, JobHandle};
pub use store::StoreError;
