// A pricing policy: one size, so many sat an hour.
#include "settings.h"

// More is a mistake in the settings.
#define MOST 10000000000

enum { SATS_PER_HOUR, MINIMUM_SAT, COUNT };

// The values are the defaults until `configure`, which the host calls first in every instance, has read others.
static setting settings[COUNT] = {
    [SATS_PER_HOUR] = NUMBER("sats_per_hour", 60, 1, MOST, NULL),
    [MINIMUM_SAT] = NUMBER("minimum_sat", 1, 0, MOST, "The least net amount that is accepted, in sat."),
};

void exports_paygress_policy_settings_schema(string *schema) { *schema = write_schema("One price", settings, COUNT); }

bool exports_paygress_policy_settings_configure(string *json, problem_list *problems) {
    return read_settings(*json, settings, COUNT, NULL, problems);
}

static paygress_policy_types_quote_t quote(void) {
    return (paygress_policy_types_quote_t){
        .tier = TEXT("standard"),
        .resources = {.cpu_millicores = 1000, .memory_mib = 1024},
        // Exact: in thousandths of a sat, for an hour.
        .price = {.msat = (uint64_t)settings[SATS_PER_HOUR].number * 1000, .seconds = 3600},
        .minimum_sat = (uint64_t)settings[MINIMUM_SAT].number,
    };
}

void exports_paygress_policy_pricing_offers(paygress_policy_types_context_t *context, exports_paygress_policy_pricing_list_offer_t *offers) {
    (void)context;
    static paygress_policy_types_offer_t offer;
    paygress_policy_types_quote_t now = quote();
    offer = (paygress_policy_types_offer_t){
        .id = now.tier,
        .name = TEXT("Standard"),
        .description = TEXT("A pod with SSH"),
        .resources = now.resources,
        .price = now.price,
        .minimum_sat = now.minimum_sat,
    };
    *offers = (exports_paygress_policy_pricing_list_offer_t){&offer, 1};
}

// True: it is quoted. False: it is refused.
bool exports_paygress_policy_pricing_quote(paygress_policy_types_order_t *order, paygress_policy_types_context_t *context,
                                           paygress_policy_types_quote_t *quoted, paygress_policy_types_refusal_t *refusal) {
    (void)context;
    // More time for a running pod is of its tier.
    const string *tier = order->tier.is_some ? &order->tier.val : NULL;
    if (order->purpose.tag == PAYGRESS_POLICY_TYPES_PURPOSE_EXTEND) tier = &order->purpose.val.extend.tier;
    *quoted = quote();
    if (!tier || same(*tier, quoted->tier)) return true;
    *refusal = (paygress_policy_types_refusal_t){TEXT("invalid_spec"), TEXT("there is no such tier; choose: standard")};
    return false;
}
