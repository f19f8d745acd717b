//! Limits of the contract that policies check their settings against.

/// The longest grant, in seconds: ten years.
pub const MAX_SECONDS: u64 = 315_360_000;

/// The longest image, in bytes, as it is published and as it runs.
pub const MAX_IMAGE_BYTES: usize = 512;

/// How many images the list that is published may have.
pub const MAX_CATALOG_IMAGES: usize = 64;

/// The text of all images of that list, in bytes.
pub const MAX_CATALOG_BYTES: usize = 16_384;
