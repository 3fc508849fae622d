//! Judges and everything they are made of: checkpoints, ONNX graphs, prompts, ONNX Runtime sessions.
//!
//! A judge gives a probability that one content breaks one policy ([`Judge`]). This crate knows
//! neither HTTP nor the database.
//!
//! To add a kind of judge: one file under `judges/` that implements [`Judge`] and says how a folder
//! of that kind is checked and opened, and one line in the list in `judges/mod.rs`.

pub mod checkpoint;
pub mod fitting;
pub mod graph;
pub mod installed;
pub mod judge;
pub mod judges;
pub mod measures;
pub mod picture;
pub mod priority;
pub mod probability;
pub mod prompt;
pub mod resample;
pub mod runtime;
pub mod seeded;

pub use judge::{
    Answer, Asked, Content, Digest, Failure, Judge, JudgeCard, Modality, PolicyText, Question, QuestionError,
    Stop,
};
pub use picture::Picture;
pub use probability::Probability;
