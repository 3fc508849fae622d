//! shieldgate: bytes in, a recorded verdict out, or an error that recorded nothing.

pub mod assets;
pub mod canonical;
pub mod cluster;
pub mod policy;
pub mod store;
pub mod media;
pub mod timestamp;
pub mod verdict;
