//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    shieldgate::memory::settle();
    shieldgate::decoders::child::main().unwrap_or_else(shieldgate::cli::main)
}
