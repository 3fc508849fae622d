//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    shieldgate::memory::settle();
    shieldgate::cli::main()
}
