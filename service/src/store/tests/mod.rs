//! What holds for the store as a whole, and each subject's statements on a real database.

mod admission;
mod audit;
mod contents;
mod guards;
mod judgements;
mod keys;
mod migrations;
mod policies;
mod pool;
mod quotas;
