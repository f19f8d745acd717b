//! What the default policies share: reading their settings, and the pod that they render.
//!
//! Plain data in and out: it imports nothing of the host, and is compiled into each component.
//!
//! ```text
//! configure(json) ─▶ SettingsReader ─▶ finish ─▶ Ok(Settings), kept by export_settings!
//!                                            └─▶ Err(all problems, each with its JSON Pointer)
//! ```
//!
//! ```
//! use paygress_plugin_settings::SettingsReader;
//!
//! let mut reader = SettingsReader::parse(r#"{"minimum": 0, "typo": 1}"#);
//! let minimum = reader.number("minimum", 60, 1..=3600);
//! let problems = reader.finish(minimum).unwrap_err();
//!
//! assert_eq!(problems[0].path, "/minimum");
//! assert_eq!(problems[0].message, "must be a whole number from 1 to 3600");
//! assert_eq!(problems[1].path, "/typo");
//! assert_eq!(problems[1].message, "is not a setting; known are: minimum");
//! ```

mod export;
mod pod;
mod problem;
mod reader;

pub use pod::SshPod;
pub use problem::{Problem, truncate_message};
pub use reader::SettingsReader;
