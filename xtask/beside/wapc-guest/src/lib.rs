//! The pricing decision as a guest of waPC.

use wapc_guest::{register_function, CallResult};

/// Called once by the host, before the first call.
#[no_mangle]
pub extern "C" fn wapc_init() {
    register_function("quote", quote);
}

fn quote(input: &[u8]) -> CallResult {
    Ok(beside_decision::decide(input)?)
}
