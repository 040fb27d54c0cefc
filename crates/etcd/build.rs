//! Generates Rust from the protocol definitions, without `protoc` on the machine.

use std::error::Error;

const FILES: [&str; 4] = ["kv.proto", "rpc.proto", "lock.proto", "election.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().build_client(false).bytes(".").compile_fds(definitions)?;
    Ok(())
}
