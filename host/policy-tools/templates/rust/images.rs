//! An images policy: a default, and a list of what else customers may ask for.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "images-policy" });
}
mod reader;

use bindings::exports::paygress::policy::{images, settings};
use bindings::paygress::policy::types::{Context, ImageRef, Order, Problem, Refusal};
use reader::Reader;
use std::cell::RefCell;

const SCHEMA: &str = r#"{schema}"#;

#[derive(Clone)]
struct Settings {
    default: String,
    allow: Vec<String>,
}

fn read(json: &str) -> Result<Settings, Vec<Problem>> {
    let mut reader = Reader::parse(json);
    let settings = Settings {
        default: reader.text("default", "paygress.local/ssh:1", incomplete),
        allow: reader.texts("allow", 1_000, incomplete),
    };
    reader.end(settings)
}

/// What is wrong with an image of the settings. A digest has a colon too.
fn incomplete(image: &str) -> Option<&'static str> {
    let complete = image.len() <= 512 && image.rsplit_once('/').is_some_and(|(_, last)| last.contains(':'));
    (!complete).then_some("must be complete: registry/repository:tag")
}

struct Policy;

thread_local! {
    // Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
}

impl settings::Guest for Policy {
    fn schema() -> String {
        SCHEMA.to_owned()
    }

    fn configure(json: String) -> Result<(), Vec<Problem>> {
        SETTINGS.set(Some(read(&json)?));
        Ok(())
    }
}

impl images::Guest for Policy {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        let refuse = |message: &str| Refusal { code: "image_not_allowed".to_owned(), message: message.to_owned() };
        let settings = SETTINGS.with_borrow(Clone::clone).ok_or_else(|| refuse("the image policy is not configured"))?;
        match order.image {
            None => Ok(ImageRef { reference: settings.default }),
            Some(wanted) if wanted == settings.default || settings.allow.contains(&wanted) => Ok(ImageRef { reference: wanted }),
            Some(_) => Err(refuse("this image is not on the operator's list; leave pod_image out to get the default")),
        }
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Policy with_types_in bindings);
