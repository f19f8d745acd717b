// An images policy: a default, and a list of what else customers may ask for.
import { Settings, list, text } from "./settings.js";

const declared = new Settings("A list of images", {
  default: text({
    check: incomplete,
    default: "paygress.local/ssh:1",
    description: "The image of orders that name none: registry/repository:tag.",
  }),
  allow: list(text({ check: incomplete }), {
    maxItems: 1_000,
    default: [],
    description: "Other images that customers may choose, compared exactly: registry/repository:tag.",
  }),
});

// Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
let kept;

// A `result` of the contract is returned when it is good and thrown when it is not.
export const settings = {
  schema: () => declared.schema(),
  configure(json) {
    kept = declared.read(json);
  },
};

// What is wrong with an image of the settings. A digest has a colon too.
function incomplete(image) {
  const good = image.length <= 512 && /\/[^/]*:[^/]*$/.test(image);
  return good ? undefined : "must be complete: registry/repository:tag";
}

export const images = {
  admit(order, context) {
    // An `option` that is none is undefined.
    const wanted = order.image ?? kept.default;
    if (wanted !== kept.default && !kept.allow.includes(wanted)) {
      const message = "this image is not on the operator's list; leave pod_image out to get the default";
      throw { code: "image_not_allowed", message };
    }
    return { reference: wanted };
  },
  // At most 64 are published.
  catalog: (context) => [kept.default, ...kept.allow].slice(0, 64).map((reference) => ({ reference })),
};
