//! Tells cargo that the embedded migrations are source: `migrate!` alone notices a changed file, not a new one.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
