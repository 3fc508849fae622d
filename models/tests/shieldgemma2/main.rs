//! ShieldGemma 2 against transformers: the values that `models/reference` wrote from two tiny random checkpoints.

mod fidelity;
mod folders;
mod golden;
