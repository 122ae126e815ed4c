//! The command line of `imagen`: parses, calls the library, prints.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_drivers();
    cli::main()
}

/// A layer of Mesa's Vulkan drivers complains on stderr where there is no desktop session. It only chooses among GPUs by
/// their order, which nothing here depends on, unless the user asks it to.
#[allow(unsafe_code)]
fn quiet_drivers() {
    let asked =
        ["NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT", "XDG_RUNTIME_DIR"].map(|name| std::env::var_os(name).is_some());
    if !asked.contains(&true) {
        // SAFETY: this is the first thing the program does; there is no other thread that could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
