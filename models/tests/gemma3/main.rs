//! Gemma 3 reading texts against transformers: the values that `models/reference` wrote from tiny random checkpoints.

mod fidelity;
mod folders;
mod golden;
mod heads;
