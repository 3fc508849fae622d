//! Faults, black-box: judges that go wrong, Postgres that goes away, kills, overload, shutdown; what was
//! answered is on record, and nothing is silently allowed.

#![expect(clippy::expect_used, reason = "this is all tests")]

mod animations;
mod append_only;
mod external;
mod judges;
mod kills;
mod logs;
mod mutated;
mod overload;
mod server;
mod shutdown;
mod stage;
mod statements;
