//! A database of its own for every test.
