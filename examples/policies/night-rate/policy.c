// A pricing policy with one tier, cheaper at night and on weekends. The time of the order counts: what is bought at night has
// the night price for its whole duration.
#include "settings.h"

enum {
    SATS_PER_HOUR,
    MINIMUM_SAT,
    CPU_MILLICORES,
    MEMORY_MIB,
    NIGHT_PERCENT,
    WEEKEND_PERCENT,
    NIGHT_FROM_HOUR,
    NIGHT_TO_HOUR,
    UTC_OFFSET_MINUTES,
    COUNT
};

// A hundred bitcoin per hour: more is a mistake in the settings.
#define MOST 10000000000

static setting settings[COUNT] = {
    [SATS_PER_HOUR] = NUMBER("sats_per_hour", 60, 1, MOST, "The price of an hour on weekdays, by day."),
    [MINIMUM_SAT] = NUMBER("minimum_sat", 1, 0, MOST, "The smallest net amount that is accepted, in sat."),
    [CPU_MILLICORES] = NUMBER("cpu_millicores", 1000, 1, 1000000, NULL),
    [MEMORY_MIB] = NUMBER("memory_mib", 1024, 1, 16777216, NULL),
    [NIGHT_PERCENT] = NUMBER("night_percent", 70, 1, 100, "The night price, in percent of the day price."),
    [WEEKEND_PERCENT] = NUMBER("weekend_percent", 80, 1, 100,
                               "The price on Saturdays and Sundays, in percent. In their nights the lower price applies."),
    [NIGHT_FROM_HOUR] = NUMBER("night_from_hour", 22, 0, 23, "The hour at which the night begins, in local time."),
    [NIGHT_TO_HOUR] = NUMBER("night_to_hour", 6, 0, 23,
                             "The hour at which the night ends. If equal to night_from_hour, there is no night."),
    [UTC_OFFSET_MINUTES] = NUMBER("utc_offset_minutes", 0, -720, 840,
                                  "The offset of local time from UTC. Daylight saving time is not supported."),
};

void exports_paygress_policy_settings_schema(string *schema) { *schema = write_schema("Night and weekend rates", settings, COUNT); }

bool exports_paygress_policy_settings_configure(string *json, problem_list *problems) {
    return read_settings(*json, settings, COUNT, NULL, problems);
}

// The price at this time, in percent of the day price.
static int64_t percent(uint64_t now) {
    enum { HOUR = 60, DAY = 24 * HOUR, WEEK = 7 * DAY };
    // 1 January 1970 was a Thursday; weeks begin on Monday. Adding a week keeps it positive for negative offsets.
    int64_t minute = (int64_t)(now / 60 % WEEK) + 3 * DAY + WEEK + settings[UTC_OFFSET_MINUTES].number;
    int64_t day = minute / DAY % 7, hour = minute % DAY / HOUR;
    int64_t from = settings[NIGHT_FROM_HOUR].number, to = settings[NIGHT_TO_HOUR].number;
    // Most nights include midnight.
    bool night = from <= to ? from <= hour && hour < to : hour >= from || hour < to;
    int64_t lowest = 100;
    if (night && settings[NIGHT_PERCENT].number < lowest) lowest = settings[NIGHT_PERCENT].number;
    if (day >= 5 && settings[WEEKEND_PERCENT].number < lowest) lowest = settings[WEEKEND_PERCENT].number;
    return lowest;
}

static paygress_policy_types_quote_t quote(uint64_t now) {
    return (paygress_policy_types_quote_t){
        .tier = TEXT("standard"),
        .resources = {(uint32_t)settings[CPU_MILLICORES].number, (uint32_t)settings[MEMORY_MIB].number},
        // Exact: sat × 1000 × percent / 100 msat, at most 1e13, which fits in 64 bits.
        .price = {(uint64_t)(settings[SATS_PER_HOUR].number * 10 * percent(now)), 3600},
        .minimum_sat = (uint64_t)settings[MINIMUM_SAT].number,
    };
}

void exports_paygress_policy_pricing_offers(paygress_policy_types_context_t *context, exports_paygress_policy_pricing_list_offer_t *offers) {
    static paygress_policy_types_offer_t offer;
    paygress_policy_types_quote_t now = quote(context->now_unix_seconds);
    offer = (paygress_policy_types_offer_t){
        .id = now.tier,
        .name = TEXT("Standard"),
        .description = TEXT("A pod with SSH. Cheaper at night and on weekends; this is the current price."),
        .resources = now.resources,
        .price = now.price,
        .minimum_sat = now.minimum_sat,
    };
    offers->ptr = &offer;
    offers->len = 1;
}

bool exports_paygress_policy_pricing_quote(paygress_policy_types_order_t *order, paygress_policy_types_context_t *context,
                                           paygress_policy_types_quote_t *quoted, paygress_policy_types_refusal_t *refusal) {
    // An extension is of the tier of the running pod.
    const string *tier = order->tier.is_some ? &order->tier.val : NULL;
    if (order->purpose.tag == PAYGRESS_POLICY_TYPES_PURPOSE_EXTEND) tier = &order->purpose.val.extend.tier;
    *quoted = quote(context->now_unix_seconds);
    if (!tier || same(*tier, quoted->tier)) return true;
    *refusal = (paygress_policy_types_refusal_t){TEXT("invalid_spec"), TEXT("there is no such tier; choose: standard")};
    return false;
}
