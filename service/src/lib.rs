//! shieldgate: bytes in, a recorded verdict out, or an error that recorded nothing.

pub mod assets;
pub mod canonical;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod decoders;
pub mod evaluation;
pub mod fetch;
pub mod housekeeping;
pub mod http;
pub mod hub;
pub mod media;
pub mod memory;
pub mod moderate;
pub mod pipeline;
pub mod policy;
pub mod scheduler;
pub mod store;
pub mod telemetry;
pub mod text;
pub mod timestamp;
pub mod tls;
pub mod verdict;
