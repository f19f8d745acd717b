// An images policy: a default, and a list of what else customers may ask for.
#include "settings.h"

// What is wrong with an image of the settings, or null. A digest has a colon too.
static const char *incomplete(string image) {
    bool slash = false, tag = false;
    for (size_t i = 0; i < image.len; i++) {
        if (image.ptr[i] == '/') slash = true, tag = false;
        if (image.ptr[i] == ':') tag = true;
    }
    return slash && tag && image.len <= 512 ? NULL : "must be complete: registry/repository:tag";
}

enum { DEFAULT, ALLOW, COUNT };

// The values are the defaults until `configure`, which the host calls first in every instance, has read others.
static setting settings[COUNT] = {
    [DEFAULT] = STRING("default", "paygress.local/ssh:1", incomplete,
                       "The image of orders that name none: registry/repository:tag."),
    [ALLOW] = STRINGS("allow", 1000, incomplete,
                      "Other images that customers may choose, compared exactly: registry/repository:tag."),
};

void exports_paygress_policy_settings_schema(string *schema) { *schema = write_schema("A list of images", settings, COUNT); }

bool exports_paygress_policy_settings_configure(string *json, problem_list *problems) {
    return read_settings(*json, settings, COUNT, NULL, problems);
}

// True: it is admitted. False: it is refused.
bool exports_paygress_policy_images_admit(paygress_policy_types_order_t *order, paygress_policy_types_context_t *context,
                                          paygress_policy_types_image_ref_t *image, paygress_policy_types_refusal_t *refusal) {
    (void)context;
    image->reference = order->image.is_some ? order->image.val : settings[DEFAULT].text;
    if (same(image->reference, settings[DEFAULT].text)) return true;
    const bindings_list_string_t *allow = &settings[ALLOW].texts;
    for (size_t i = 0; i < allow->len; i++) {
        if (same(image->reference, allow->ptr[i])) return true;
    }
    *refusal = (paygress_policy_types_refusal_t){
        TEXT("image_not_allowed"), TEXT("this image is not on the operator's list; leave pod_image out to get the default")};
    return false;
}

// At most 64 are published.
void exports_paygress_policy_images_catalog(paygress_policy_types_context_t *context,
                                            exports_paygress_policy_images_list_image_offer_t *offers) {
    (void)context;
    static exports_paygress_policy_images_image_offer_t published[64];
    const bindings_list_string_t *allow = &settings[ALLOW].texts;
    size_t count = 0;
    published[count++].reference = settings[DEFAULT].text;
    for (size_t i = 0; i < allow->len && count < 64; i++) published[count++].reference = allow->ptr[i];
    *offers = (exports_paygress_policy_images_list_image_offer_t){published, count};
}
