//! What goes into `verdicts` comes out again.
