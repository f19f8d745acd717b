//! An images policy: a default, and a list of what else customers may ask for.

use paygress_policy_sdk::{Context, ImageOffer, ImageRef, Images, Order, Problems, Refusal, RefusalCode, refuse};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "A list of images")]
pub struct Settings {
    /// The image of orders that name none: registry/repository:tag.
    default: String,
    /// Other images that customers may choose, compared exactly: registry/repository:tag.
    #[schemars(length(max = 1_000))]
    allow: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { default: "paygress.local/ssh:1".to_owned(), allow: Vec::new() }
    }
}

/// Whether it is registry/repository:tag. A digest has a colon too.
fn is_complete(image: &str) -> bool {
    image.len() <= 512 && image.rsplit_once('/').is_some_and(|(_, last)| last.contains(':'))
}

impl Images for Settings {
    // What the schema does not say.
    fn check(&self, problems: &mut Problems) {
        if !is_complete(&self.default) {
            problems.add(&["default"], "must be complete: registry/repository:tag");
        }
        for (index, _) in self.allow.iter().enumerate().filter(|(_, image)| !is_complete(image)) {
            problems.add(&["allow", &index.to_string()], "must be complete: registry/repository:tag");
        }
    }

    fn admit(&self, order: &Order, _: &Context) -> Result<ImageRef, Refusal> {
        let reference = order.image.as_ref().unwrap_or(&self.default).clone();
        if reference == self.default || self.allow.contains(&reference) {
            return Ok(ImageRef { reference });
        }
        let message = "this image is not on the operator's list; leave pod_image out to get the default";
        Err(refuse(RefusalCode::ImageNotAllowed, message))
    }

    // At most 64 are published.
    fn catalog(&self, _: &Context) -> Vec<ImageOffer> {
        let images = std::iter::once(&self.default).chain(&self.allow).take(64);
        images.map(|image| ImageOffer { reference: image.clone(), description: None }).collect()
    }
}

paygress_policy_sdk::export!(Images for Settings);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_reported() {
        let problems = paygress_policy_sdk::parse::<Settings>(r#"{"allow": ["example.com/a:1", "debian"]}"#).err().unwrap();
        assert_eq!(problems[0].path, "/allow/1");
    }
}
