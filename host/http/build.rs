//! Whether the page's libraries are there: `npm ci` in `web` brings them, `cargo xtask` does that.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_libraries)");
    let libraries = [
        "web/node_modules/@xterm/xterm/lib/xterm.js",
        "web/node_modules/@xterm/xterm/css/xterm.css",
        "web/node_modules/@xterm/addon-fit/lib/addon-fit.js",
        "web/node_modules/swagger-ui-dist/swagger-ui-bundle.js",
        "web/node_modules/swagger-ui-dist/swagger-ui.css",
    ];
    for library in libraries {
        println!("cargo::rerun-if-changed={library}");
    }
    if libraries.iter().all(|library| Path::new(library).exists()) {
        println!("cargo::rustc-cfg=has_libraries");
    } else {
        println!(
            "cargo::warning=the page is built without its terminal: run `npm ci` in host/http/web first"
        );
    }
}
