//! The wire contract and the command line, black-box: every promise of DESIGN.md that a client can see.

mod images;
